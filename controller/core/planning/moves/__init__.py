"""Moves in plans: which containers go on under another name of their service."""
