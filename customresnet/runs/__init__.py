"""A run on disk: its folder, its checkpoints, what it recorded, and weights to share."""
