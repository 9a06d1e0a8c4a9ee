"""What a program does with the clients: complete, readable training runs built on the public API only."""
