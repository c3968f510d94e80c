"""What every job shares: parsing, running, secrets, recipes, the terminal."""
