"""The commands, one file each: a function that reads from top to bottom, and whose signature is the flags."""
