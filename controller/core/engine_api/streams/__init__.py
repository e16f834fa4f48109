"""Streams of the engine: the logs of containers, and the lines of a pull."""
