import torch

from ulsdram_core.seeding import generator_of, seed_of


def test_seeds_depend_on_every_part_and_on_nothing_else():
    seeds = [seed_of(0, "order", 1), seed_of(0, "order", 2), seed_of(0, "chance", 1), seed_of(1)]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, "order", 1) == 2002067703672271585


def test_generators_repeat():
    one, other = generator_of(7, "x"), generator_of(7, "x")
    assert torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=other))
