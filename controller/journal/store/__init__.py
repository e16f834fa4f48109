"""The journal's files: segments, the hash chain, torn tails, reading."""
