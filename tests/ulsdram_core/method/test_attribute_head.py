import pytest
import torch
from torch.testing import assert_close

from ulsdram_core.method.attribute_head import build_head


def test_none_builds_nothing():
    assert build_head("none", 8, 3) is None


@pytest.mark.parametrize("head", ["paper", "released", "none"])
@torch.no_grad()
def test_equals_the_reference(parts_of, examples_of, collated, products, reference, head):
    parts = parts_of("tir", "none", "crf", model={"head": head})
    example = examples_of(parts, products[1:2])[0]
    output = parts.model(collated([example]), lambda _: None)
    regions = [
        parts.model.image_encoder(torch.from_numpy(p).permute(2, 0, 1)[None])[0]
        for p in example.pictures
    ]
    logits, _ = reference.tag(parts.model, example.window, regions, threshold=0.5, names=[])
    if head == "none":
        assert output.logits_BC is None
        assert logits is None
    else:
        assert_close(output.logits_BC[0], logits, rtol=1e-5, atol=1e-5)


def test_the_paper_head_reads_one_layer_and_the_released_head_two():
    last, before = torch.randn(2, 8), torch.randn(2, 8)
    paper, released = build_head("paper", 8, 3), build_head("released", 8, 3)
    assert paper.score.bias is None, "Eq. 6 has none"
    assert_close(paper(last, before), paper(last, before + 1))
    assert (released(last, before) - released(last, before + 1)).abs().max() > 1e-3


def test_the_linear_head_is_the_papers_with_a_bias():
    vectors = torch.randn(2, 8)
    head = build_head("linear", 8, 3)
    wanted = vectors @ head.score.weight.T + head.score.bias
    assert_close(head(vectors, vectors), wanted)


@pytest.mark.parametrize("head", ["paper", "linear", "released"])
def test_scores_stay_fp32_under_autocast(head):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        built = build_head(head, 8, 3)
        last = torch.randn(2, 8)
        assert built(last.bfloat16(), last.bfloat16()).dtype == torch.float32
