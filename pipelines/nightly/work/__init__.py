"""How a night's chunks are extracted and staged."""
