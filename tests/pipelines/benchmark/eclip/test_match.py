import polars as pl
import torch

from pipelines.benchmark.eclip.match import match_data, pairs_to_judge

ROWS = {
    "texts": ["red shirt", "shirt, red", "red shirt", "blue shirt", "a mug", "mug, white"],
    "key": ["x", "x", "y", "z", "m", "m"],
}


def test_pairs_to_judge_never_have_equal_texts():
    data = match_data(pl.DataFrame(ROWS), "key")
    vectors = torch.nn.functional.normalize(
        torch.tensor([[1, 0.0], [1, 0.1], [1, 0.0], [1, 0.5], [0, 1.0], [0.1, 1]]), dim=1
    )
    left, right, is_match = pairs_to_judge(data, vectors)
    assert (data.titles[left] != data.titles[right]).all()
    pairs = set(zip(left.tolist(), right.tolist(), is_match.tolist(), strict=True))
    assert {(0, 1, 1), (0, 3, 0), (1, 0, 1), (4, 5, 1)} <= pairs


def test_a_null_key_matches_nothing():
    frame = pl.DataFrame({"texts": list("abcdef"), "key": [2, 5, None, None, None, None]})
    data = match_data(frame, "key")
    assert len(set(data.groups.tolist())) == 6
    assert not len(data.queries)


def test_queries_that_pretraining_may_have_seen_are_counted():
    data = match_data(pl.DataFrame(ROWS), "key", num_train=2)
    assert data.seen() == "2 of 4 queries are training products"
