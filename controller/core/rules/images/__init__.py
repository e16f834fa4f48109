"""Rules about images: which run, and the volumes that they declare."""
