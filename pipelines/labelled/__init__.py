"""Labelled tables: columns, pixels, corrections."""
