"""Sections about networks, runs and data, and the pages that show them, without Lightning."""
