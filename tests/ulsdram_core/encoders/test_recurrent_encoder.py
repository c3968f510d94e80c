"""The RNN text encoder: nn.LSTM is the reference; padding changes nothing."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import BertConfig, BertModel

from ulsdram_core.checkpoint import load_model, save_model
from ulsdram_core.encoders.recurrent_encoder import RecurrentEncoder, StackedBiLstm, final_states
from ulsdram_core.encoders.text_encoder import TextEncoderConfig

MASK = torch.arange(5)[None] < torch.tensor([[5], [2]])


def torch_lstm(layer: StackedBiLstm) -> nn.LSTM:
    """The same weights in PyTorch's own module."""
    ours = layer.lstm
    lstm = nn.LSTM(ours.weight_input.shape[1], ours.hidden, bidirectional=True, batch_first=True)
    half = 4 * ours.hidden
    with torch.no_grad():
        for number, suffix in enumerate(("", "_reverse")):
            rows = slice(number * half, (number + 1) * half)
            getattr(lstm, f"weight_ih_l0{suffix}").copy_(ours.weight_input[rows])
            getattr(lstm, f"weight_hh_l0{suffix}").copy_(ours.weight_hidden[number])
            getattr(lstm, f"bias_ih_l0{suffix}").copy_(ours.bias[rows])
            getattr(lstm, f"bias_hh_l0{suffix}").zero_()
    return lstm


@torch.no_grad()
def test_equals_torch_lstm_and_its_final_states():
    torch.manual_seed(0)
    encoder = RecurrentEncoder(9, 6, 8, layers=2).eval()
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0]])
    embedded = encoder.embed(ids, torch.zeros_like(ids))
    states, before = encoder(embedded, MASK)
    assert before is states
    sentence = encoder.sentence(states, MASK)
    first, second = (torch_lstm(layer) for layer in encoder.layers)
    for row, length in enumerate((5, 2)):
        inner, _ = first(embedded[row : row + 1, :length])
        wanted, (last, _) = second(inner)
        assert_close(states[row, :length], wanted[0])
        assert_close(sentence[row], torch.cat([last[0, 0], last[1, 0]]))
    assert not states[1, 2:].any()


def test_final_states_by_hand():
    states = torch.arange(8.0).view(1, 2, 4)
    assert final_states(states, torch.tensor([[True, True]])).tolist() == [[4, 5, 2, 3]]
    assert final_states(states, torch.tensor([[True, False]])).tolist() == [[0, 1, 2, 3]]


def test_an_odd_size_is_refused():
    with pytest.raises(ValueError, match="expected an even size"):
        RecurrentEncoder(9, 6, 7)


@pytest.fixture
def checkpoint(tmp_path, tokenizer):
    config = BertConfig(
        vocab_size=len(tokenizer) + 3,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    bert = BertModel(config)
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert", bert.embeddings.word_embeddings.weight.detach()


def test_starts_from_a_checkpoints_word_embeddings(checkpoint, tokenizer):
    folder, vectors = checkpoint
    config = TextEncoderConfig(name="bilstm", hidden=8, layers=1, vectors=str(folder))
    encoder = config.build_any(len(tokenizer))
    assert_close(encoder.embeddings.weight.data, vectors, rtol=0, atol=0)
    assert config.tokenizer_location() == str(folder)
    assert not config.is_pretrained
    with pytest.raises(ValueError, match="expected an encoder with attention"):
        config.build(len(tokenizer))


def test_a_saved_model_opens_without_the_checkpoint(
    checkpoint, parts_of, examples_of, collated, products, tmp_path
):
    folder, _ = checkpoint
    text = {"name": "bilstm", "hidden": 8, "layers": 1, "vectors": str(folder)}
    parts = parts_of("none", "none", "crf", model={"text_encoder": text, "head": "linear"})
    save_model(parts, tmp_path / "model")
    folder.rename(tmp_path / "gone")
    again = load_model(tmp_path / "model")
    batch = collated(examples_of(parts, products[:3]))
    with torch.no_grad():
        one, other = (p.model.encode(batch) for p in (parts, again))
    assert_close(one.units_BUH, other.units_BUH)
    assert_close(one.logits_BC, other.logits_BC)


def test_regions_cannot_be_read_as_pieces(config_of):
    with pytest.raises(ValueError, match="a BiLSTM cannot read regions"):
        config_of("concat", model={"text_encoder": {"name": "bilstm", "hidden": 8}})
