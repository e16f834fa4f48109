"""The table of attributes of the Compose Specification: the treatment of each of them."""
