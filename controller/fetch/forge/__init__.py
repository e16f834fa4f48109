"""Forges, such as GitHub, GitLab and Forgejo: their webhooks wake a source, and they get commit statuses."""
