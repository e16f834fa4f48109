"""Text of Compose files to nodes with places: YAML, variables, env files."""
