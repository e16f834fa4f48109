"""Builds: Dockerfiles, their bases, and the contexts of builds, without I/O."""
