"""Proofs of signed commits, as the controller uploads proofs to the broker."""
