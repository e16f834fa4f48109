"""Proofs of signed commits at the gate: the accepted commits, and uploads of the controller."""
