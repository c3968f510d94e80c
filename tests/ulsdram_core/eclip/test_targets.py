import pytest
import torch

from ulsdram_core.eclip.contrast import backward_contrast, contrast
from ulsdram_core.eclip.targets import TargetConfig

CATALOG = torch.tensor([7, 3, 7, 9, 3, 7])


def slow_targets(kind: str, share: float, start: int, end: int) -> list[list[float]]:
    rows = []
    for i in range(start, end):
        same = [j for j in range(len(CATALOG)) if CATALOG[j] == CATALOG[i]]
        soft = [1 / len(same) if j in same else 0.0 for j in range(len(CATALOG))]
        own = [float(i == j) for j in range(len(CATALOG))]
        mixed = [share * a + (1 - share) * b for a, b in zip(own, soft, strict=True)]
        rows.append({"catalog": soft, "identity": own, "masked": own, "mixed": mixed}[kind])
    return rows


def slow_loss(texts, pictures, scale, kind: str, share: float, start: int, end: int) -> float:
    """Term by term, with plain Python numbers."""
    labels = slow_targets(kind, share, start, end)
    total = 0.0
    for queries, keys in ((pictures, texts), (texts, pictures)):
        for i in range(start, end):
            logits = [scale * float(queries[i] @ keys[j]) for j in range(len(keys))]
            seen = [
                j
                for j in range(len(keys))
                if kind != "masked" or j == i or CATALOG[j] != CATALOG[i]
            ]
            norm = torch.logsumexp(torch.tensor([logits[j] for j in seen]), 0).item()
            total -= sum(labels[i - start][j] * (logits[j] - norm) for j in seen)
    return total / 2


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(5)
    both = torch.nn.functional.normalize(torch.randn(2, 6, 4, generator=generator), dim=-1)
    return both[0].requires_grad_(), both[1].requires_grad_()


@pytest.mark.parametrize("kind", ["catalog", "identity", "masked", "mixed"])
@pytest.mark.parametrize("rows", [(0, 6), (2, 5)])
def test_targets_and_loss_equal_the_slow_reference(kind, rows, vectors):
    config = TargetConfig(kind=kind, identity_share=0.3)
    found = config.rows(CATALOG, *rows)
    torch.testing.assert_close(found.weight_RN, torch.tensor(slow_targets(kind, 0.3, *rows)))
    torch.testing.assert_close(found.weight_RN.sum(1), torch.ones(rows[1] - rows[0]))
    texts, pictures = vectors
    loss = contrast(texts, pictures, torch.tensor(9.0), found, rows[0])
    assert float(loss) == pytest.approx(
        slow_loss(texts.detach(), pictures.detach(), 9.0, kind, 0.3, *rows), rel=1e-5
    )


def test_a_mix_of_all_identity_is_identity():
    mixed = TargetConfig(kind="mixed", identity_share=1.0).rows(CATALOG, 0, 6)
    assert torch.equal(mixed.weight_RN, torch.eye(6))


def test_blocks_of_rows_add_up(vectors, monkeypatch):
    texts, pictures = vectors
    scale = torch.tensor(2.0, requires_grad=True)
    figures = []
    for block in (1024, 2):
        monkeypatch.setattr("ulsdram_core.eclip.contrast.BLOCK_ROWS", block)
        texts.grad = pictures.grad = scale.grad = None
        exponent = scale.exp()
        loss = backward_contrast(
            texts, pictures, CATALOG, exponent, targets=TargetConfig(), rows=(0, 6)
        )
        figures.append((torch.tensor(loss), texts.grad, pictures.grad, scale.grad))
    torch.testing.assert_close(figures[0], figures[1])
