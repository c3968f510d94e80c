"""What a user is told of storage and tables that cannot be used."""

from ulsdram_core.errors import UlsdramError


class QueryError(UlsdramError):
    """A table, a moment, a column or an option of a query that cannot be used."""


class StorageError(ValueError):
    """A URI or a storage option that cannot be used."""


class UnreachableError(StorageError):
    """A storage that gave no answer; unlike for other errors of a URI, trying again may help."""
