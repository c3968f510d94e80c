# ruff: noqa: RUF001
"""The mapping files, one value, and the vectorised form against the plain one."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.normalization.normalizer import (
    DEFAULT_RULES,
    MappingError,
    Normalizer,
    clean,
    singular,
)

SHIPPED = Normalizer.load()

VALUES = pa.list_(
    pa.struct(
        [
            ("attribute", pa.string()),
            ("value", pa.string()),
            ("normalized", pa.string()),
            ("start", pa.int32()),
        ]
    )
)


def write_rules(folder: Path, rules: str, **tables: str) -> Path:
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    path = folder / "rules.toml"
    path.write_text(rules, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("Color", "Navy Blue", "navy"),
        ("color", "GREY", "gray"),
        ("Main Color", "Dark Grey,", "dark gray"),
        ("Brand", "Grey", "grey"),
        ("颜色", "大红", "红色"),
        ("主颜色", "藏蓝", "藏青色"),
        ("材质", "全棉", "纯棉"),
        ("Size", "x-large", "XL"),
        ("Size", "xl", "XL"),
        ("尺码", "均码", "one size"),
        ("Volume", "100ML", "100 ml"),
        ("净含量", "100毫升", "100 ml"),
        ("净含量", "２公斤", "2 kg"),
        ("Screen", "15.6”", "15.6 in"),
        ("Alcohol", "12.5 percent", "12.5%"),
        ("Staff", "5 men", "5 men"),
        ("Pattern", "Polka Dots", "polka dot"),
        ("Type", "Skinny Jeans", "skinny jeans"),
        ("Type", "Dresses", "dress"),
        ("Quantity", "1½ cups", "1 1/2 cups"),
        ("Note", "  ＡＢＣ　１２ ", "abc 12"),
        ("Note", "...", "..."),
        ("Note", "", ""),
    ],
)
def test_shipped_rules(attribute, value, expected):
    assert SHIPPED.normalize(value, attribute) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stories", "story"),
        ("boxes", "box"),
        ("glass", "glass"),
        ("bus", "bus"),
        ("红色s", "红色s"),
    ],
)
def test_singular(word, expected):
    assert singular(word, {}) == expected


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["color", "Size", "Type", "Material", "anything", "颜色"]),
    st.text(max_size=20)
    | st.lists(
        st.sampled_from(
            ["grey", "navy", "BLUE", "dresses", "10", "ml", "公斤", "5.5", "xl", "大红"]
        )
    ).map(" ".join),
)
def test_normalizing_twice_changes_nothing(attribute, value):
    once = SHIPPED.normalize(value, attribute)
    assert SHIPPED.normalize(once, attribute) == once


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12))
def test_clean_keeps_inner_text(text):
    assert clean(clean(text)) == clean(text)


def random_pairs(seed: int, size: int) -> pl.DataFrame:
    rows = pl.int_range(size, eager=True)
    attributes = pl.Series(["color", "size", "type", None])
    values = pl.Series(["Grey", "XL", "Dots", None, "大红", "10ML", "Navy  Blue"])
    return pl.DataFrame(
        {
            "attribute": attributes.gather(rows.hash(seed) % len(attributes)),
            "value": values.gather(rows.hash(seed + 1) % len(values)),
        }
    )


def plain_answer(pairs: pl.DataFrame) -> list[str | None]:
    return [
        None if value is None else SHIPPED.normalize(value, attribute)
        for attribute, value in pairs.iter_rows()
    ]


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_expression_equals_plain_function(engine):
    pairs = random_pairs(0, 500)
    lazy = pairs.lazy().with_columns(normalized=SHIPPED.expression())
    assert lazy.collect(engine=engine)["normalized"].to_list() == plain_answer(pairs)


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
@pytest.mark.parametrize(("offset", "length"), [(0, 4), (1, 3), (1, 1), (4, 0)])
def test_fill_keeps_everything_but_normalized(kind, offset, length):
    def value(attribute, text, start):
        return {"attribute": attribute, "value": text, "normalized": None, "start": start}

    rows = [
        [value("color", "GREY", 3), value("size", "large", 9)],
        None,
        [],
        [value("type", "Dots", 0)],
    ]
    column = pa.array(rows, type=kind(VALUES.value_type)).slice(offset, length)
    filled = SHIPPED.fill(column)
    expected = [
        row and [v | {"normalized": SHIPPED.normalize(v["value"], v["attribute"])} for v in row]
        for row in rows[offset : offset + length]
    ]
    assert filled.type == column.type
    assert filled.to_pylist() == expected
    filled.validate(full=True)


def test_fill_takes_chunks():
    chunk = pa.array(
        [[{"attribute": "color", "value": "GREY", "normalized": None, "start": 1}]], type=VALUES
    )
    filled = SHIPPED.fill(pa.chunked_array([chunk, chunk.slice(0, 0), chunk]))
    assert [row[0]["normalized"] for row in filled.to_pylist()] == ["gray", "gray"]


def test_edited_mapping_is_used(tmp_path):
    path = write_rules(
        tmp_path,
        '[[scope]]\nattributes = ["*"]\ncase = "upper"\n'
        '[[scope]]\nattributes = ["Colour*"]\ncase = "keep"\nvalues = ["colours.csv"]\n',
        colours="from,to\n# ours\nred|scarlet,Crimson Tide\ncrimson tide,Sunset\n",
    )
    ours = Normalizer.load(path)
    assert ours.normalize("Scarlet", "colour family") == "Sunset"
    assert ours.normalize("Teal", "colour family") == "Teal"
    assert ours.normalize("teal", "brand") == "TEAL"
    assert Normalizer.load(tmp_path).normalize("red", "COLOUR") == "Sunset"


@pytest.mark.parametrize(
    ("rules", "table", "message"),
    [
        ("[[scope]]\ncase = 'lower'", None, "attributes"),
        ("[[scope]]\nattributes = ['*']\ncase = 'loud'", None, r"scope\.0\.case"),
        ("[[scope]]\nattributes = ['*']\nplural = true", None, r"scope\.0\.plural"),
        ("scope = [", None, "no readable rules"),
        ("[[scope]]\nattributes = ['*']\nvalues = ['t.csv']", None, "no readable table"),
        ("[[scope]]\nattributes = ['*']\nvalues = ['t.csv']", "a,b\n", "expected from,to"),
        ("[[scope]]\nattributes = ['*']\nvalues = ['t.csv']", "from,to\nx\n", "row 2"),
        ("[[scope]]\nattributes = ['c']\nvalues = ['t.csv']", "from,to\nx,y\ny,x\n", "in a circle"),
        ("[[scope]]\nattributes = ['c']\nwords = ['t.csv']", "from,to\nx,a x\n", "in a circle"),
    ],
)
def test_wrong_mapping_is_refused(tmp_path, rules, table, message):
    path = write_rules(tmp_path, rules, **({} if table is None else {"t": table}))
    with pytest.raises(MappingError, match=message) as caught:
        Normalizer.load(path)
    assert "\n" not in str(caught.value).strip() or message == "no readable rules"


def test_shipped_rules_name_every_shipped_table():
    text = DEFAULT_RULES.read_text(encoding="utf-8")
    assert all(path.name in text for path in DEFAULT_RULES.parent.glob("*.csv"))
