"""Training an extractor."""
