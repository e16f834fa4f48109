"""`logs` and `exec`: the output of containers, and commands in them."""
