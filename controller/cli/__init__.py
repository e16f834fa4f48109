"""The command line: parse, call wiring, print. One module a group of commands, loaded on use."""
