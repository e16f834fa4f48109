"""trimtab keeps a Docker host in the state that a directory of YAML files declares."""

__version__ = "0.1.0"
