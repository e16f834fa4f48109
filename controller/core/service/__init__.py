"""The life of a service: rollout progress, revisions, overrides, pruning, operator actions."""
