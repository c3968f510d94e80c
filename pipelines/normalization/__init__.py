"""The shipped mapping: `rules.toml` says what applies to which attribute, the CSVs hold the words."""
