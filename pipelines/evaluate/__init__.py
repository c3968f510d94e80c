"""Scores of a trained model on labelled data."""
