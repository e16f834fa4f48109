"""The rules of admission: one function each, on one request with its facts."""
