"""Training in one process: reproducible, shuffled, with hidden pictures."""

import pytest
import torch
from torch.testing import assert_close

from ulsdram_core.fit.fitting import FitConfig, fit, length_sorted_batches
from ulsdram_core.parts import assemble


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def trained(config_of, labels, tokenizer, products, examples_of):
    """A function: losses and weights after a short training from the same start."""

    def run(**changes):
        torch.manual_seed(0)
        parts = assemble(config_of("tir"), labels, tokenizer)
        torch.rand(changes.pop("drawn_before", 0))  # the state of the global generator
        config = FitConfig(**{"epochs": 2, "batch_size": 4, "precision": "fp32"} | changes)
        losses = [epoch.loss for epoch in fit(parts, examples_of(parts, products), config)]
        assert not parts.model.training
        return losses, parts.model.state_dict()

    return run


def test_equal_seeds_give_equal_models(trained):
    one, other = trained(seed=3), trained(seed=3, drawn_before=17)
    assert one[0] == other[0]
    assert_close(other[1], one[1], rtol=0, atol=0)


def test_another_seed_gives_another_model(trained):
    assert trained(seed=3)[0] != trained(seed=4)[0]


def test_the_loss_falls(trained):
    losses, _ = trained(epochs=8, optim={"text_rate": 2e-3}, picture_dropout=0.0)
    assert losses[-1] < 0.7 * losses[0]


def test_the_mean_of_the_weights_is_what_remains(trained):
    plain, averaged = trained(epochs=3), trained(epochs=3, average=True)
    assert averaged[0] == plain[0], "training itself goes its way"
    assert not all(torch.equal(plain[1][name], averaged[1][name]) for name in plain[1])


def test_an_epoch_is_judged_by_the_mean(config_of, labels, tokenizer, products, examples_of):
    torch.manual_seed(0)
    parts = assemble(config_of("none"), labels, tokenizer)
    config = FitConfig(epochs=2, batch_size=4, precision="fp32", average=True)
    shown = []
    for _ in fit(parts, examples_of(parts, products), config):
        shown.append({name: p.clone() for name, p in parts.model.state_dict().items()})
    assert_close(parts.model.state_dict(), shown[-1], rtol=0, atol=0)


def test_no_examples_is_a_clear_error(config_of, labels, tokenizer):
    parts = assemble(config_of("none"), labels, tokenizer)
    with pytest.raises(ValueError, match="no examples"):
        list(fit(parts, [], FitConfig()))


def test_batches_cover_every_row_once_and_keep_lengths_together():
    lengths = torch.randint(1, 200, (1000,), generator=generator()).tolist()
    batches = list(length_sorted_batches(lengths, 8, generator(1)))
    assert sorted(i for batch in batches for i in batch) == list(range(1000))
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert sum(spread) / len(spread) < 30
    first = [lengths[batch[0]] for batch in batches]
    assert first != sorted(first), "the order of batches is random"
    assert list(length_sorted_batches(lengths, 8, generator(1))) == batches
    assert list(length_sorted_batches(lengths, 8, generator(2))) != batches


def test_nonsense_is_refused():
    for bad in ({"epochs": 0}, {"picture_dropout": 1.0}, {"unit_dropout": 1.0}, {"batch": 3}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            FitConfig(**bad)
