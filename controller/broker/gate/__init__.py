"""The gate without I/O: routes, request parsing, and the one way to change the engine."""
