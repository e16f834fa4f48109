"""Charts: templates with values, and the documents that Releases render to, without I/O."""
