"""A prepared folder appears whole or not at all, and replaces nothing but a prepared folder."""

from __future__ import annotations

import json
import logging
import os
import socket
import uuid
from pathlib import Path

from pipelines.lake.kinds import MARKER, PREPARED, check_kind, claim
from pipelines.lake.storage import Storage
from pipelines.prepare.title_groups import SPLITS
from ulsdram_core.folders import exchange_folders

FORMAT = "ulsdram prepared products"
REPORT_JSON = "report.json"
REPORT_MARKDOWN = "report.md"
_OWNER = "owner.json"
_log = logging.getLogger(__name__)


class Publication:
    """Work goes on in `draft`, beside the target; `publish` puts it in the target's place."""

    def __init__(self, target: Storage) -> None:
        _restore(target)
        check_target(target)
        self.target = target
        self._suffix = uuid.uuid4().hex[:12]
        self.draft = Storage(f"{target.uri}.tmp-{self._suffix}", target.options)
        _remove_leftovers(target)
        owner = {"host": socket.gethostname(), "pid": os.getpid()}
        self.draft.join(_OWNER).write_bytes(json.dumps(owner).encode())

    def publish(self) -> None:
        """Replace the target; a local reader finds the old folder or the new one.

        Storage without renames is filled file by file behind a report that says `complete: false`
        until all are there.
        """
        check_target(self.target)
        claim(self.draft, PREPARED)
        self.draft.join(_OWNER).delete()
        if self.target.is_local:
            self._rename()
        else:
            self._copy()
        self.discard()

    def discard(self) -> None:
        """Remove the draft."""
        self.draft.delete()

    def _rename(self) -> None:
        target, draft = Path(self.target.path), Path(self.draft.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and exchange_folders(draft, target):
            return  # the draft is the old folder now, and is discarded
        old = target.with_name(f"{target.name}.old-{self._suffix}")
        if not target.exists():
            draft.rename(target)
            return
        target.rename(old)
        try:
            draft.rename(target)
        except OSError:
            old.rename(target)
            raise
        Storage.of(old).delete()

    def _copy(self) -> None:
        report = self.draft.join(REPORT_JSON).read_bytes()
        marker = {"format": FORMAT, "complete": False}
        self.target.join(REPORT_JSON).write_bytes(json.dumps(marker).encode())
        for split in SPLITS:
            self.target.join(split).delete()
        for name in [*SPLITS, REPORT_MARKDOWN, MARKER]:
            self.draft.join(name).copy_to(self.target.join(name))
        self.target.join(REPORT_JSON).write_bytes(report)


def check_target(target: Storage) -> None:
    """ValueError unless nothing is there, or an empty folder, or a prepared one."""
    if not target.exists():
        return
    if not target.is_folder():
        raise ValueError(f"found a file at --out {target.uri}, expected a folder or nothing")
    if not is_prepared(target) and target.fs.ls(target.path, detail=False):
        raise ValueError(
            f"found files of another kind in --out {target.uri}, expected nothing or a folder "
            "that prepare made; name another folder"
        )
    check_kind(target, PREPARED)


def _restore(target: Storage) -> None:
    """Put back the old folder of a process that died between its two renames; drop others."""
    if not target.is_local:
        return
    path = Path(target.path)
    for old in sorted(path.parent.glob(f"{path.name}.old-*")):
        if path.exists():
            Storage.of(old).delete()
        else:
            old.rename(path)


def is_prepared(place: Storage) -> bool:
    """Return whether prepare made this folder (it may still be incomplete)."""
    try:
        report = json.loads(place.join(REPORT_JSON).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(report, dict) and report.get("format") == FORMAT


def _remove_leftovers(target: Storage) -> None:
    """Drafts of processes on this machine that are gone; others' may still be at work."""
    if not target.is_local:
        return
    path = Path(target.path)
    for draft in path.parent.glob(f"{path.name}.tmp-*"):
        owner = Storage.of(draft).join(_OWNER)
        if owner.exists() and _is_gone(json.loads(owner.read_bytes())):
            _log.info("removing %s, left by an interrupted run", draft)
            Storage.of(draft).delete()


def _is_gone(owner: dict[str, object]) -> bool:
    if owner.get("host") != socket.gethostname() or not isinstance(owner.get("pid"), int):
        return False
    try:
        os.kill(int(str(owner["pid"])), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
