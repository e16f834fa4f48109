"""The command line: parses arguments, calls ``app``, prints results. Imports commands on use."""
