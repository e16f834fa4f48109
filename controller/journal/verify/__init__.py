"""Verification of a journal, and copies of it for others."""
