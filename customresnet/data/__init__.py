"""From files to batches: sources read images into memory, augment changes them, the data module serves them."""
