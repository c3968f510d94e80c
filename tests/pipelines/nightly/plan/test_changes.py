"""Which rows of the table count as changed although their content is what it was."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from pipelines.lake.tables import EXTRACTIONS_SCHEMA, SCHEMA_VERSION
from pipelines.nightly.plan.changes import ChangeRules, known_rows

FIRST = datetime(2026, 1, 1, 23, 30, tzinfo=UTC)
NUM_ROWS = 400


def extracted(days: int) -> pa.Table:
    """Rows that were extracted so many days after the first day."""
    rows = [
        {
            "product_id": f"p{i}",
            "input_hash": f"{i:032x}",
            "model_id": "m",
            "status": "ok",
            "schema_version": SCHEMA_VERSION,
            "extracted_at": FIRST + timedelta(days=days),
        }
        for i in range(NUM_ROWS)
    ]
    return pa.Table.from_pylist(rows, EXTRACTIONS_SCHEMA)


def due(rows: pa.Table, day: int, recheck_days: int | None) -> set[int]:
    """Positions of the rows that are extracted again on a day."""
    today = (FIRST + timedelta(days=day)).timestamp() // 86400
    rules = ChangeRules(model_id="m", recheck_days=recheck_days, today=int(today))
    return {
        i for i, is_current in enumerate(known_rows(rows, rules)["is_current"]) if not is_current
    }


@pytest.mark.parametrize("days", [1, 2, 7, 30])
def test_every_row_has_one_day_of_the_cycle(days):
    rows = extracted(0)
    assert due(rows, 0, days) == set()
    new = [due(rows, day, days) - due(rows, day - 1, days) for day in range(1, days + 1)]
    counts = Counter(i for found in new for i in found)
    assert counts == Counter(range(NUM_ROWS))
    assert max(map(len, new)) < 3 * NUM_ROWS / days


def test_a_night_that_was_missed_is_made_up_for():
    assert due(extracted(0), 3, 7) == due(extracted(0), 1, 7) | due(extracted(0), 3, 7)
    assert len(due(extracted(0), 3, 7)) > 2 * NUM_ROWS / 7
    assert due(extracted(0), 40, 7) == set(range(NUM_ROWS))
    assert due(extracted(3), 3, 7) == set()


def test_nothing_is_due_unless_it_is_asked_for():
    assert due(extracted(0), 1000, None) == set()
