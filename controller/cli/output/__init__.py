"""Output for a terminal: tables, times, user names, excerpts of files."""
