"""Appending to the journal: one thread, group commit, checkpoints, retention."""
