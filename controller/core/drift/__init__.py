"""Drift between a container and its document: what differs, what failed, what repairs it."""
