"""Files, locks and sockets of the host, as every process of trimtab uses them."""
