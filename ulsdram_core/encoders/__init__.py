"""Encoders of texts and pictures, and what they are built of."""
