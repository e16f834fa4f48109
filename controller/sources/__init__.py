"""The desired-state directory: files, charts and Git state to documents and problems; the watch."""
