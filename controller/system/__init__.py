"""Files, locks, sockets and system calls of the host, for every process of trimtab."""
