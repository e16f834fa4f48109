"""The control loop: one pass for one key, and the supervisor that runs passes."""
