"""Signed admission without I/O: proofs of commits, rendered documents, and the comparison of requests."""
