"""The nightly recipe and its overrides."""

import pytest

from pipelines.nightly.settings import NightlyConfig, load_nightly_config


def test_the_shipped_recipe_spells_out_the_defaults():
    assert load_nightly_config() == NightlyConfig()


def test_overrides_reach_into_sections():
    config = load_nightly_config(
        overrides=[
            "gate.max_row_change=1.5",
            "columns.sources.title=name",
            "maintenance.vacuum_hours=null",
            'retry_reasons=["unreachable_picture"]',
        ]
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
        ('kind = "nightly"', ["chunks.row=1"], "unknown key chunks.row; did you mean chunks.rows?"),
        ('kind = "nightly"', ["chunks.rows=0"], "chunks.rows is 0, expected greater"),
        ('kind = "nightly"', ["chunks"], "expected key=value"),
        (
            'kind = "nightly"',
            ["num_buckets.x=1"],
            "num_buckets is a section, expected a valid integer",
        ),
        (None, [], "found no recipe"),
    ],
)
def test_wrong_recipes_are_explained(tmp_path, content, overrides, message):
    path = tmp_path / "r.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_nightly_config(str(path), overrides)
