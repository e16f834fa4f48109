"""Proofs of signed commits at the gate: what was accepted, and uploads of the controller."""
