"""What a night has to do: listing, keys, changes, chunks."""
