"""The broker's delivered files on disk: stored contents, and the folders that containers mount."""
