"""Servers that others wrote, one user's program on each: with the official SDK of their era, and with tinkex."""
