"""Admission of moves: a service goes on under another name."""
