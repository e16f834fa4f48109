"""Fetching of Git sources: a process of its own, with no way to the engine or the broker."""
