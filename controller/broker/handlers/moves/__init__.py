"""Moves of services: containers go on under another name of their service."""
