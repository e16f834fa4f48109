"""Signed admission in the inventory: accepted commits, and the revisions that proofs admitted."""
