"""The whole product on the built-in catalogue."""
