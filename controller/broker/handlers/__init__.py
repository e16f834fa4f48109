"""One handler for each route: a generator of commands, without I/O."""
