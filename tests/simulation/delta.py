"""deltalake in the simulated store: real tables in memory, every request a storage call."""

from typing import Any

import deltalake
import polars
from simulation.processes import storage_call
from simulation.store import SCHEME, real_path

_CALLS = {
    "create_write_transaction": "delta commit",
    "vacuum": "delta vacuum",
    "create_checkpoint": "delta checkpoint",
    "history": "delta read",
    "update_incremental": "delta read",
}


def real_uri(uri: Any) -> Any:
    """The same place where deltalake finds it."""
    is_simulated = isinstance(uri, str) and uri.startswith(f"{SCHEME}://")
    return str(real_path(uri)) if is_simulated else uri


class SimulatedDelta:
    """Stands in for `deltalake.DeltaTable`."""

    def __init__(self, table_uri: str, version: Any = None, **more: Any) -> None:
        more.pop("storage_options", None)
        self._uri = str(table_uri)
        place = real_uri(self._uri)
        self._delta = storage_call(
            "delta open", self._uri, lambda: deltalake.DeltaTable(place, version=version, **more)
        )

    @staticmethod
    def create(table_uri: str, *args: Any, **more: Any) -> None:
        more.pop("storage_options", None)
        place = real_uri(table_uri)
        storage_call(
            "delta create",
            table_uri,
            lambda: deltalake.DeltaTable.create(place, *args, **more),
        )

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._delta, name)
        kind = _CALLS.get(name)
        if kind is None:
            return found

        def call(*args: Any, **more: Any) -> Any:
            return storage_call(kind, self._uri, lambda: found(*args, **more))

        return call

    @property
    def optimize(self) -> "_Optimizer":
        return _Optimizer(self._uri, self._delta)


class _Optimizer:
    def __init__(self, uri: str, delta: deltalake.DeltaTable) -> None:
        self._uri = uri
        self._delta = delta

    def compact(self, **more: Any) -> Any:
        compact = self._delta.optimize.compact
        return storage_call("delta compact", self._uri, lambda: compact(**more))


class SimulatedPolars:
    """Stands in for the module `polars`: scans find tables of the simulated store."""

    def __getattr__(self, name: str) -> Any:
        return getattr(polars, name)

    def scan_delta(self, source: Any, **more: Any) -> polars.LazyFrame:
        if isinstance(source, SimulatedDelta):
            source = source._delta
        more.pop("storage_options", None)
        uri = real_uri(source)
        return storage_call("delta read", str(source), lambda: polars.scan_delta(uri, **more))
