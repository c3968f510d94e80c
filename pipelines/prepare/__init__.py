"""From raw files, or any table with known values, to labelled tables."""
