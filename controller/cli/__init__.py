"""The command line: parse, call ``app``, print. One module a group of commands, loaded on use."""
