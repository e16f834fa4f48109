"""Plans: the ordered actions that make observed state match desired state."""
