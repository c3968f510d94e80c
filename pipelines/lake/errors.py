"""The error of a question that cannot be answered."""

from ulsdram_core.errors import UlsdramError


class QueryError(UlsdramError):
    """A table, a moment, a column or an option of a query that cannot be used."""
