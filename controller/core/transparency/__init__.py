"""Tamper evidence: Merkle trees, signed notes, checkpoints (C2SP)."""
