"""`volume` and `network`: list volumes, adopt foreign ones, dump and restore."""
