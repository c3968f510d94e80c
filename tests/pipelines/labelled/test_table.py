import polars as pl
import pytest

from pipelines.labelled.table import open_labelled, warn_of_unread_gold
from pipelines.lake.storage import Storage
from pipelines.lake.tables import Columns


def span(**named):
    return {"attribute": "brand", "value": "Acme", "start": 0, "end": 4, **named}


def table_of(folder, gold, sources):
    (folder / "train").mkdir()
    rows = {"product_id": ["1", "2"], "title": ["Acme shoe"] * 2, "description": ["Acme"] * 2}
    pl.DataFrame({**rows, "gold": gold}).write_parquet(folder / "train" / "0.parquet")
    return open_labelled(
        Storage.of(folder), "train", columns=Columns(), sources=sources, uses_pictures=False
    )


@pytest.mark.parametrize(
    ("gold", "sources", "expected"),
    [
        ([[span(source="title"), span(source="description")], []], ("title",), "1 of 2"),
        ([[span(source="description")], [span(source=None)]], ("title",), "1 of 2"),
        ([[span(source="title"), span(source="description")], None], ("title", "description"), ""),
        ([[span()], []], ("description",), "1 of 1"),
        ([[span()], [span()]], ("title",), ""),
    ],
)
def test_gold_in_a_text_that_is_not_read_is_told(tmp_path, caplog, gold, sources, expected):
    warn_of_unread_gold(table_of(tmp_path, gold, sources))
    if not expected:
        assert not caplog.messages
        return
    (message,) = caplog.messages
    assert f"{expected} gold values stand in" in message
    assert "text.sources='[" in message
