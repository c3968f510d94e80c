"""The nightly recipe and its overrides."""

import pytest

from pipelines.lake.storage import Storage
from pipelines.nightly.settings import NightlyConfig, load_nightly_config


def test_the_shipped_recipe_spells_out_the_defaults():
    assert load_nightly_config(None) == NightlyConfig()


def test_overrides_reach_into_sections():
    config = load_nightly_config(
        None,
        [
            "gate.max_row_change=1.5",
            "columns.sources.title=name",
            "maintenance.vacuum_hours=null",
            'retry_reasons=["unreachable_picture"]',
        ],
    )
    assert config.gate.max_row_change == 1.5
    assert config.columns.sources == {"title": "name", "description": "description"}
    assert config.maintenance.vacuum_hours is None
    assert config.retry_reasons == ("unreachable_picture",)


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ('kind = "train"', [], "has kind 'train', expected 'nightly'"),
        ("kind =", [], "is not TOML"),
        ('kind = "nightly"', ["waves.row=1"], "waves.row: Extra inputs"),
        ('kind = "nightly"', ["waves.rows=0"], "waves.rows: Input should be greater"),
        ('kind = "nightly"', ["waves"], "expected key=value"),
        ('kind = "nightly"', ["num_buckets.x=1"], "num_buckets: Input should be a valid integer"),
        (None, [], "found no recipe"),
    ],
)
def test_wrong_recipes_are_explained(tmp_path, content, overrides, message):
    path = tmp_path / "r.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_nightly_config(Storage.of(path), overrides)
