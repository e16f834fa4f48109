"""`logs` and `exec`: print the output of containers, and run commands in containers."""
