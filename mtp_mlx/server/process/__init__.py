"""The processes and threads around the server."""
