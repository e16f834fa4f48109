"""Plans: the actions from the observed to the desired state, in order."""
