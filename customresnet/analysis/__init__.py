"""Sections on trained networks, their runs and their data, and the pages that show them. No Lightning here."""
