"""Time travel: which version of a Delta table a version number, a run id or a time means."""

from dataclasses import dataclass
from datetime import UTC, datetime

from deltalake import DeltaTable

from pipelines.lake.errors import QueryError

RUN_ID_KEY = "run_id"  # of the commit's own metadata

Moment = int | str | datetime


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of a table; `run_id` is None when no run made it (creation, maintenance)."""

    version: int
    committed_at: datetime
    run_id: str | None
    operation: str


def commits_of(delta: DeltaTable) -> list[Commit]:
    """Return every version that the log still knows, oldest first."""
    entries = sorted(delta.history(), key=lambda entry: int(entry["version"]))
    return [
        Commit(
            version=int(entry["version"]),
            committed_at=datetime.fromtimestamp(int(entry["timestamp"]) / 1000, tz=UTC),
            run_id=entry.get(RUN_ID_KEY),
            operation=str(entry.get("operation", "")),
        )
        for entry in entries
    ]


def find_commit(commits: list[Commit], moment: Moment) -> Commit:
    """Return the commit that a moment means; a run id wins over a number or time spelled alike.

    A run means the table as that run left it; a time means the newest version not after it.
    """
    if isinstance(moment, str):
        of_run = [commit for commit in commits if commit.run_id == moment]
        if of_run:
            return of_run[-1]
        moment = _parse(moment, commits)
    if isinstance(moment, datetime):
        return _newest_until(commits, moment)
    for commit in commits:
        if commit.version == moment:
            return commit
    known = f"{commits[0].version} to {commits[-1].version}"
    raise QueryError(f"found no version {moment} of the table, expected one of {known}")


def matching_commit(commits: list[Commit], moment: Commit) -> Commit | None:
    """Return a second table's version that belongs to a commit of the first; None if older."""
    of_run = [commit for commit in commits if moment.run_id and commit.run_id == moment.run_id]
    until = [commit for commit in commits if commit.committed_at <= moment.committed_at]
    return (of_run or until or [None])[-1]  # type: ignore[list-item]


def _parse(text: str, commits: list[Commit]) -> int | datetime:
    if text.isdecimal():
        return int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        runs = list(dict.fromkeys(commit.run_id for commit in commits if commit.run_id))
        raise QueryError(
            f"found no run {text!r} in the table's history, expected a version number, an ISO time "
            f"or one of the runs {runs[-5:]}; --query runs lists them all"
        ) from None


def _newest_until(commits: list[Commit], time: datetime) -> Commit:
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    until = [commit for commit in commits if commit.committed_at <= time]
    if not until:
        raise QueryError(
            f"found no version as old as {time.isoformat()}, expected a time from "
            f"{commits[0].committed_at.isoformat()} on"
        )
    return until[-1]
