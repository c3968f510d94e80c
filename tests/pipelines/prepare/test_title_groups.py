from __future__ import annotations

import pytest

from pipelines.prepare.title_groups import (
    normalized_title,
    split_of_group,
    split_of_name,
    title_group,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Nike Men Red Tshirt", "NIKE  red men t\uff53hirt"),
        ("Crocs Jayna Flat, Navy, 4 M US", "Crocs Jayna Flat,Navy,10.5 XL"),
        ("Finn Comfort Women's 2051-014099", "Finn Comfort Women's 8400"),
        ("Sacred Threads Top Small", "Top, Sacred Threads (Large)"),
        ("\u4ee5\u7eaf\u77ed\u8896T\u6064", "T\u6064 \u77ed\u8896 \u4ee5\u7eaf!"),
    ],
)
def test_near_duplicates_are_one_group(one, other):
    assert title_group(one) == title_group(other)


@pytest.mark.parametrize(
    ("one", "other"), [("Red Tshirt", "Blue Tshirt"), ("501", "502"), ("XL", "XS")]
)
def test_different_titles_are_not(one, other):
    assert title_group(one) != title_group(other)


def test_normalized_title_is_readable():
    assert normalized_title("Women's 2-Pack  Socks, Size 9 (Black)") == "black pack socks women"


def test_shares_are_met():
    groups = [
        title_group(f"word{chr(97 + n % 26)}{chr(97 + n // 26 % 26)} {'x' * (n // 676)}")
        for n in range(20_000)
    ]
    splits = [split_of_group(group, {"valid": 0.1, "test": 0.2}) for group in groups]
    assert 0.08 < splits.count("valid") / len(splits) < 0.12
    assert 0.18 < splits.count("test") / len(splits) < 0.22
    assert {split_of_group(group, {}) for group in groups} == {"train"}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train/part-0.parquet", "train"),
        ("val/3.json", "valid"),
        ("train_large.jsonl", "train"),
        ("Test.jsonl", "test"),
        ("part-0.parquet", None),
        ("testimonials.parquet", None),
        ("train/test.json", "train"),
    ],
)
def test_names_tell_splits(name, split):
    assert split_of_name(name.split("/")) == split
