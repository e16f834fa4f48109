"""Git without I/O: objects, references, trees, and the decision which commit is served."""
