"""Verification of a journal, and export of verifiable copies."""
