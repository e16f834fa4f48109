"""Output for people: tables, times, user names, excerpts of files."""
