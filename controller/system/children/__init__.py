"""Children that answer requests over pipes, such as the workers that decrypt and render."""
