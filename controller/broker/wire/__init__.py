"""HTTP/1.1 without I/O: bytes to requests, responses to bytes."""
