import itertools
import math
import sys

import pytest
import torch

from ulsdram_core.eclip.probe import choose_probe, fit_probe, k_means
from ulsdram_core.eclip.scores import (
    accuracy,
    adjusted_rand,
    auc,
    best_threshold,
    bootstrap_interval,
    f1_at,
    macro_f1,
    mean_interval,
    normalized_information,
    purity,
    sklearn_metrics,
)


def draw(seed, classes=4, rows=60):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(classes, (rows,), generator=generator) for _ in range(2)]


@pytest.mark.parametrize("seed", range(3))
def test_classification_against_counting(seed):
    found, wanted = draw(seed)
    assert accuracy(found, wanted) == pytest.approx(
        sum(a == b for a, b in zip(found.tolist(), wanted.tolist(), strict=True)) / 60
    )
    scores = []
    for label in set(found.tolist()) | set(wanted.tolist()):
        right = int(((found == label) & (wanted == label)).sum())
        scores.append(2 * right / int((found == label).sum() + (wanted == label).sum()))
    assert macro_f1(found, wanted) == pytest.approx(sum(scores) / len(scores))


@pytest.mark.parametrize("seed", range(3))
def test_auc_and_threshold_against_all_pairs(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(12, (50,), generator=generator).float()
    positive = torch.rand(50, generator=generator) < 0.3
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in scores[positive].tolist()
        for b in scores[~positive].tolist()
    ]
    assert auc(scores, positive) == pytest.approx(sum(wins) / len(wins))
    best = max(f1_at(scores, positive, limit) for limit in range(-1, 14))
    assert f1_at(scores, positive, best_threshold(scores, positive)) == pytest.approx(best)
    assert math.isnan(auc(scores, torch.zeros(50, dtype=torch.bool)))


@pytest.mark.parametrize("seed", range(3))
def test_clustering_against_definitions(seed):
    found, wanted = draw(seed)
    a, b = found.tolist(), wanted.tolist()
    together = same_a = same_b = 0
    for i, j in itertools.combinations(range(60), 2):
        same_a += a[i] == a[j]
        same_b += b[i] == b[j]
        together += a[i] == a[j] and b[i] == b[j]
    expected = same_a * same_b / (60 * 59 / 2)
    rand = (together - expected) / ((same_a + same_b) / 2 - expected)
    assert adjusted_rand(found, wanted) == pytest.approx(rand)
    mutual = 0.0
    for x in set(a):
        for y in set(b):
            both = sum(p == x and q == y for p, q in zip(a, b, strict=True)) / 60
            if both:
                mutual += both * math.log(both / (a.count(x) / 60 * b.count(y) / 60))
    entropies = [-sum(v.count(x) / 60 * math.log(v.count(x) / 60) for x in set(v)) for v in (a, b)]
    assert normalized_information(found, wanted) == pytest.approx(2 * mutual / sum(entropies))
    majority = sum(
        max(sum(p == x and q == y for p, q in zip(a, b, strict=True)) for y in set(b))
        for x in set(a)
    )
    assert purity(found, wanted) == pytest.approx(majority / 60)


def test_perfect_clusters_under_other_names():
    wanted = torch.tensor([0, 0, 1, 1, 2, 2])
    found = torch.tensor([2, 2, 0, 0, 1, 1])
    for score in (adjusted_rand, normalized_information, purity):
        assert score(found, wanted) == pytest.approx(1.0)


def test_an_interval_covers_the_mean_and_widens_with_groups():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(200)
    values = (torch.rand(200, generator=generator) < 0.4).float()
    low, high = bootstrap_interval(values, groups)
    assert low < float(values.mean()) < high
    assert high - low == pytest.approx(2 * 1.96 * (0.24 / 200) ** 0.5, rel=0.25)
    low, high = bootstrap_interval(values.repeat_interleave(4), groups.repeat_interleave(4))
    assert high - low == pytest.approx(2 * 1.96 * (0.24 / 200) ** 0.5, rel=0.25)


def blobs(rows=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.eye(3, 8) * 3
    labels = torch.randint(3, (rows,), generator=generator)
    return centers[labels] + torch.randn(rows, 8, generator=generator), labels


def test_the_probe_reads_what_is_linear_and_is_at_its_minimum():
    vectors, labels = blobs()
    probe = choose_probe((vectors[:200], labels[:200]), (vectors[200:], labels[200:]))
    assert accuracy(probe.logits(vectors[200:]).argmax(1), labels[200:]) > 0.9
    found = fit_probe(vectors, labels, strength=0.1, steps=200)
    weight = found.weight_CD.clone().requires_grad_()
    standard = (vectors - found.mean_D) / found.deviation_D
    loss = torch.nn.functional.cross_entropy(standard @ weight.T + found.bias_C, labels)
    (loss + 0.05 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-3


def test_the_probe_survives_unknown_validation_classes():
    vectors, labels = blobs()
    few = labels < 2
    probe = choose_probe((vectors[few], labels[few]), (vectors, labels))
    assert probe.logits(vectors).shape == (300, 2)


def test_k_means_finds_blobs_and_keeps_to_its_seed():
    vectors, labels = blobs()
    found = k_means(vectors, 3, seed=1)
    assert normalized_information(found, labels) > 0.7
    assert torch.equal(found, k_means(vectors, 3, seed=1))
    assert int(k_means(torch.ones(5, 4), 3, seed=0).max()) <= 2


@pytest.mark.parametrize(("count", "factor"), [(2, 12.706), (5, 2.776), (31, 2.042)])
def test_few_values_give_the_interval_of_student(count, factor):
    values = torch.arange(count).float()
    low, high = mean_interval(values)
    half = factor * float(values.std()) / count**0.5
    assert high - low == pytest.approx(2 * half, rel=2e-4)
    assert (low + high) / 2 == pytest.approx(float(values.mean()), abs=1e-6)


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ValueError, match=r"^found no scikit-learn.*ulsdram\[bench\]'$"):
        sklearn_metrics()


def test_no_rows_have_no_macro_f1():
    none = torch.zeros(0, dtype=torch.long)
    assert math.isnan(macro_f1(none, none))
