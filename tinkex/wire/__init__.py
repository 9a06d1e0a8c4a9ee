"""The two forms of the API's values on the wire: JSON, and protobuf where JSON is too slow."""
