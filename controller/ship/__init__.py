"""Shipping the journal's records elsewhere: a process of its own, without any privilege."""
