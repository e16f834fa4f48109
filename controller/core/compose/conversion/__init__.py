"""Containers, and the requests that create them, as services of a Compose project."""
