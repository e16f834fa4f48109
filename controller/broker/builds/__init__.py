"""Builds in the broker: the context of a build as an archive, its upload, and its run on the engine."""
