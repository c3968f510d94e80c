"""Delta tables as other engines leave them: deletion vectors, reader features, column mapping."""

import json
import struct
from pathlib import Path

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def change_protocol(table: Path, features: list[str], **configuration: str) -> None:
    """Write reader features and configuration into the table's first log entry."""
    log = table / "_delta_log" / f"{0:020}.json"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    for entry in entries:
        if "protocol" in entry:
            names = {"readerFeatures": features, "writerFeatures": features}
            entry["protocol"] = {"minReaderVersion": 3, "minWriterVersion": 7, **names}
        if "metaData" in entry:
            entry["metaData"]["configuration"] |= configuration
    log.write_text("\n".join(map(json.dumps, entries)))


def hide_rows(table: Path, rows: list[int]) -> str:
    """Delete rows of the table's first file by a deletion vector; the file's path."""
    log = table / "_delta_log"
    versions = sorted(log.glob("*.json"))
    entries = [json.loads(line) for line in versions[0].read_text().splitlines()]
    added = next(entry["add"] for entry in entries if "add" in entry)
    bitmap = _bitmap(rows)
    vector = {"storageType": "i", "pathOrInlineDv": _z85(bitmap), "cardinality": len(rows)}
    vector["sizeInBytes"] = len(bitmap)
    removed = {"path": added["path"], "deletionTimestamp": 1, "dataChange": True}
    actions = [{"remove": removed}, {"add": added | {"deletionVector": vector}}]
    entry = log / f"{len(versions):020}.json"
    entry.write_text("\n".join(map(json.dumps, actions)))
    return added["path"]


def _bitmap(rows: list[int]) -> bytes:
    """A roaring bitmap array of one container, in the portable form that Delta stores."""
    container = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16)
    container += b"".join(struct.pack("<H", row) for row in rows)
    return struct.pack("<IQI", 1681511377, 1, 0) + container


def _z85(data: bytes) -> str:
    data += b"\0" * (-len(data) % 4)
    text = ""
    for i in range(0, len(data), 4):
        number = int.from_bytes(data[i : i + 4], "big")
        text += "".join(_DIGITS[number // 85**power % 85] for power in range(4, -1, -1))
    return text
