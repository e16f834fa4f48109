"""A docker command line as the Engine API request that it sends."""
