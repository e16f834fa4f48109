"""`policy` and `image`: show, write, reload and query the policy."""
