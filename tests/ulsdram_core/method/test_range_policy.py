"""Guidance without its concatenation against Eq. 8 written out."""

import pytest
import torch
from torch.testing import assert_close

from ulsdram_core.method.range_policy import DynetPolicy, PairFeatures, RangePolicyConfig

B, U, H, C = 3, 5, 8, 6
WINDOW = torch.tensor([0, 0, 1, 2, 2, 2])
ATTRIBUTE = torch.tensor([4, 1, 1, 0, 4, 5])


@pytest.fixture
def features():
    return torch.randn(B, U, H, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["prototype", "dynet", "dynet rank 2", "bert"])
def guided(request, features):
    """(features of the pairs, the same concatenated by hand)."""
    torch.manual_seed(1)
    kind, _, rank = request.param.partition(" rank ")
    policy = RangePolicyConfig(kind=kind, dynet_rank=int(rank) if rank else None).build(C, H)
    extra = (torch.randn(C, H),) if kind == "bert" else ()
    found = policy(features, WINDOW, ATTRIBUTE, *extra)
    rows = []
    for window, attribute in zip(WINDOW.tolist(), ATTRIBUTE.tolist(), strict=True):
        f = features[window]
        if kind == "dynet":
            matrix = policy.matrices.weight[attribute].view(H, -1)
            if rank:
                matrix = matrix @ policy.back.weight[attribute].view(-1, H)
            second = f @ matrix
        else:
            vectors = extra[0] if extra else policy.prototypes.weight
            p = vectors[attribute]
            second = torch.stack([(p @ x) / (p.norm() * x.norm()) * x for x in f])
        rows.append(torch.cat([f, second], -1))
    return found, torch.stack(rows)


def test_projection_equals_the_concatenation(guided):
    found, concatenated = guided
    weight, bias = torch.randn(7, 2 * H), torch.randn(7)
    wanted = concatenated @ weight.T + bias
    assert_close(found.projection(weight, bias).dense(), wanted, rtol=1e-5, atol=1e-5)


def test_some_rows_equal_all_rows(guided):
    found, concatenated = guided
    weight, bias = torch.randn(7, 2 * H), torch.randn(7)
    some = found.rows(slice(2, 5)).projection(weight, bias).dense()
    assert_close(some, (concatenated @ weight.T + bias)[2:5], rtol=1e-5, atol=1e-5)


def test_without_guidance_the_feature_alone_is_projected(features):
    plain = PairFeatures(features, torch.arange(B))
    weight, bias = torch.randn(7, H), torch.randn(7)
    assert_close(plain.projection(weight, bias).dense(), features @ weight.T + bias)


def test_dynet_gradients_reach_only_the_attributes_in_the_range(features):
    policy = DynetPolicy(C, H)
    policy(features, WINDOW, ATTRIBUTE).second_NUH.sum().backward()
    touched = policy.matrices.weight.grad.abs().sum(1) > 0
    assert touched.nonzero()[:, 0].tolist() == sorted(set(ATTRIBUTE.tolist()))


def test_the_cosine_is_not_rounded_under_autocast(features):
    policy = RangePolicyConfig(kind="prototype").build(C, H)
    exact = policy(features, WINDOW, ATTRIBUTE).scale_NU
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(policy(features, WINDOW, ATTRIBUTE).scale_NU, exact)


def test_no_pairs(features):
    none = torch.zeros(0, dtype=torch.long)
    for kind in ("prototype", "dynet"):
        policy = RangePolicyConfig(kind=kind).build(C, H)
        found = policy(features, none, none)
        assert found.projection(torch.randn(7, 2 * H), torch.randn(7)).dense().shape == (0, U, 7)


def test_prototypes_start_as_standard_normal():
    torch.manual_seed(0)
    weight = RangePolicyConfig(kind="prototype").build(2000, 64).prototypes.weight
    assert abs(float(weight.std()) - 1) < 0.01
