"""Files that the broker delivers to containers: their names, contents, variants and bounds."""
