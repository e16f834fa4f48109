"""Policies as text: load, describe, and name the line that would permit a request."""
