"""The desired-state directory and fetched commits: files and charts to documents and problems; the watch."""
