"""The folder of one run and how an open run is found again.

`_runs/open.json` points at the open run. A run is closed by `published.json` or `abandoned.json`
in its folder; its reports stay, its plans and staging go.
"""

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.lake.documents import read_json, write_json
from pipelines.lake.storage import Storage

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = re.compile(r"\.(?:json|tmp)$|^(?:erase|rollback)-|^\d+$", re.IGNORECASE)
LAST = "last.json"  # beside the runs: what the next night builds upon
OPEN, RUN, PUBLISHED, ABANDONED = "open.json", "run.json", "published.json", "abandoned.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`_runs/<run_id>/`: run.json, plans, staging, reports, closing marker."""

    place: Storage

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.place.name

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a JSON file of the run; None when it was not written."""
        return read_json(self.place.join(name))

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Put a JSON file whole."""
        write_json(self.place.join(name), content)

    def is_closed(self) -> bool:
        """Return whether the run was published or abandoned."""
        return any(self.place.join(name).exists() for name in (PUBLISHED, ABANDONED))

    def age_days(self) -> float:
        """Return days since the run was opened; 0 when nobody knows."""
        record = self.read(RUN) or {}
        opened = datetime.fromisoformat(record.get("opened_at") or now_text())
        return (datetime.now(UTC) - opened).total_seconds() / 86400

    def drop_work(self) -> None:
        """Remove plans and staging; reports and markers stay."""
        for name in self.place.names():
            if name.startswith(("plan-", "staging", "attempts")):
                self.place.join(name).delete()


def new_run_id() -> str:
    """Return a name that sorts by time."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def check_run_id(run_id: str) -> str:
    """Return the id itself, if it can be a folder name and means nothing else."""
    if _RESERVED.search(run_id):
        raise ValueError(
            f"found run id {run_id!r}, expected one that is no number, ends in neither .json nor "
            ".tmp and does not start with erase- or rollback-: such names mean something else"
        )
    if not _RUN_ID.fullmatch(run_id):
        raise ValueError(
            f"found run id {run_id!r}, expected up to 100 letters, digits, dots, dashes and "
            "underscores, starting with a letter or digit"
        )
    return run_id


def open_run(runs: Storage, run_id: str | None, request: Mapping[str, Any]) -> RunFolder:
    """Return the run to work on: the named or open one if it has the same request, else a new one.

    An open run with another request (another model, other inputs) is abandoned; a *named* run
    with another request is the caller's mistake.
    """
    current = find_open_run(runs)
    if current is not None and run_id not in (None, current.run_id):
        abandon(runs, current)
        current = None
    if current is not None and not _has_request(current, request):
        if run_id is not None:
            raise ValueError(
                f"run {run_id} is open with another request (model, inputs or options); "
                "repeat that request or choose another --run-id"
            )
        abandon(runs, current)
        current = None
    if current is not None:
        return current
    folder = RunFolder(runs.join(check_run_id(run_id or new_run_id())))
    if folder.is_closed():
        raise ValueError(f"run {folder.run_id} was abandoned; choose another --run-id")
    folder.write(RUN, {"run_id": folder.run_id, "request": request, "opened_at": now_text()})
    write_json(runs.join(OPEN), {"run_id": folder.run_id})
    return folder


def published(runs: Storage, run_id: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a run of this name and request published; ValueError: it had another request."""
    folder = RunFolder(runs.join(check_run_id(run_id)))
    summary = folder.read(PUBLISHED)
    different = [] if summary is None else _differences(folder, request)
    if different:
        raise ValueError(
            f"run {run_id} was published with another request ({', '.join(different)} differ); "
            "choose another --run-id"
        )
    return summary


def abandon_open_run(runs: Storage) -> str | None:
    """Close the open run without publishing; its id, or None when there is none."""
    pointer = read_json(runs.join(OPEN))
    if pointer is None:
        return None
    folder = RunFolder(runs.join(pointer["run_id"]))
    if not folder.is_closed():
        abandon(runs, folder)
        return folder.run_id
    folder.drop_work()  # its closing was cut short
    runs.join(OPEN).delete()
    return None


def abandon(runs: Storage, folder: RunFolder) -> None:
    """Close a run without publishing and drop what it staged."""
    folder.write(ABANDONED, {"at": now_text()})
    folder.drop_work()  # found again through the pointer when it is cut short
    runs.join(OPEN).delete()


def close_run(runs: Storage, folder: RunFolder, summary: Mapping[str, Any]) -> None:
    """Mark the run as published."""
    folder.write(PUBLISHED, summary)
    runs.join(OPEN).delete()


def sweep(
    runs: Storage, *, keep_days: float | None, kept: Container[str] = (), is_open_kept: bool = True
) -> list[str]:
    """Close runs that nobody will continue and drop runs older than `keep_days`; their ids.

    An owner that slept through a takeover leaves such runs. `kept` are never dropped; the open run
    is not touched, unless `is_open_kept` says so: its pointer may not be found for a moment.
    """
    open_run_id = (read_json(runs.join(OPEN)) or {}).get("run_id") if is_open_kept else None
    swept = []
    for name in runs.names():
        if name.startswith("_") or name.endswith(".json") or name == open_run_id:
            continue
        folder = RunFolder(runs.join(name))
        if not folder.is_closed():
            folder.write(ABANDONED, {"at": now_text()})
            swept.append(name)
        folder.drop_work()
        if keep_days is not None and name not in kept and folder.age_days() > keep_days:
            folder.place.delete()
            swept.append(name)
    return sorted(set(swept))


def now_text() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def find_open_run(runs: Storage) -> RunFolder | None:
    """Return the run that was begun and neither published nor abandoned."""
    pointer = read_json(runs.join(OPEN))
    if pointer is None:
        return None
    folder = RunFolder(runs.join(pointer["run_id"]))
    return None if folder.is_closed() else folder


def _has_request(folder: RunFolder, request: Mapping[str, Any]) -> bool:
    return folder.read(RUN) is not None and not _differences(folder, request)


def _differences(folder: RunFolder, request: Mapping[str, Any]) -> list[str]:
    """Return what the run was asked for otherwise; nothing where its record is gone."""
    asked = (folder.read(RUN) or {}).get("request")
    now = json.loads(json.dumps(request))
    return [] if asked is None else sorted(k for k in now | asked if now.get(k) != asked.get(k))
