"""Which services are down because of the controller, and whether one more may go."""
