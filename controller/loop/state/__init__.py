"""What the controller remembers of each service, between passes and across restarts."""
