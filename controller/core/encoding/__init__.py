"""Text formats (JSON, image references, ids, quoting), and graphs of keys."""
