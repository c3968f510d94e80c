"""The shipped mapping: `rules.toml` says what applies to which attribute, CSVs hold the words."""
