"""The effective request: what the engine and its runtime make of a create and the image's config."""
