"""Verification and rendering of proofs in the broker, with the render worker."""
