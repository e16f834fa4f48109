"""What users declare: the spec of each kind, the desired state made of it, and plans."""
