"""YAML: documents with the places of their values, mistakes in plain words, and shown lines."""
