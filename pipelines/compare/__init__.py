"""What would change between two tables or two models."""
