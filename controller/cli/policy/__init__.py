"""`policy` and `image`: show, write, reload and ask the policy."""
