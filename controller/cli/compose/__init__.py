"""`try`, `convert` and `schema`: Compose files, containers and docker commands as documents; editor help."""
