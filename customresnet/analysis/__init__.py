"""Views of a trained network, its run and its data: each returns a figure and the numbers behind it."""
