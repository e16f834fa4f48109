"""Text formats: JSON, YAML, image references, ids, quoting."""
