"""Several Compose files as one tree: merging, extends, include, and the limits of a project."""
