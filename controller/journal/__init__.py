"""The journal: a signed record of every change, written by the broker only."""
