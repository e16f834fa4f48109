"""Checks of one document beyond its schema: conflicting choices and invalid names."""
