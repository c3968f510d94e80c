"""Delta tables as inputs: one version's files and rows, and the change feed between two."""
