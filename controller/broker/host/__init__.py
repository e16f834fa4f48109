"""System calls of the broker: peer credentials, paths, processes, sockets, capabilities."""
