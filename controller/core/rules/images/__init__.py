"""Rules about images: admitted images, and volumes that images declare."""
