"""Sources: files, charts and Git to texts and problems; watching, which only wakes."""
