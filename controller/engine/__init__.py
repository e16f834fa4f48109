"""The engine as the controller reaches it: through the broker's socket, over the Docker SDK."""
