"""The page: what people see of a host in a browser."""
