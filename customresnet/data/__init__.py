"""From files to batches: sources read images into memory, transforms prepare them, the data module batches them."""
