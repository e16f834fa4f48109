"""Users' YAML to desired state: parse, validate, resolve, and explain mistakes."""
