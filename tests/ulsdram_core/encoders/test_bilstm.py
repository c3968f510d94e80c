"""The ragged BiLSTM against torch's, with packed sequences."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from ulsdram_core.encoders.bilstm import BiLstm, RaggedOrder
from ulsdram_core.encoders.pair_projection import PairProjection

LENGTHS = {
    "ragged": [5, 1, 7, 3, 7],
    "one row": [4],
    "all full": [6, 6, 6],
    "ones": [1, 1],
}


def packed(lstm, x, lengths):
    packed_in = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed_in)[0], batch_first=True, total_length=x.shape[1])[0]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("padding", [0, 2])
def test_equals_packed_lstm(reference, lengths, padding):
    torch.manual_seed(0)
    layer = BiLstm(6, 4)
    lstm = reference.as_lstm(layer)
    units = max(lengths) + padding
    x = torch.randn(len(lengths), units, 6)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    gates = ours @ layer.weight_input.T + layer.bias
    found = layer(PairProjection.of(gates), torch.tensor(lengths))
    wanted = packed(lstm, theirs, torch.tensor(lengths))
    assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    weight = torch.randn_like(wanted)
    (found * weight).sum().backward()
    (wanted * weight).sum().backward()
    assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
    expected = torch.cat([lstm.weight_hh_l0.grad, lstm.weight_hh_l0_reverse.grad])
    if max(lengths) > 1:  # else nothing recurs
        assert_close(layer.weight_hidden.grad.flatten(0, 1), expected, rtol=1e-5, atol=1e-5)
    expected = torch.cat([lstm.weight_ih_l0.grad, lstm.weight_ih_l0_reverse.grad])
    assert_close(layer.weight_input.grad, expected, rtol=1e-5, atol=1e-5)
    expected = torch.cat([lstm.bias_ih_l0.grad, lstm.bias_ih_l0_reverse.grad])
    assert_close(layer.bias.grad, expected, rtol=1e-5, atol=1e-5)


def test_padding_holds_zeros_whatever_its_input():
    layer = BiLstm(6, 4)
    gates = torch.randn(2, 5, 32)
    gates[0, 2:] = float("nan")
    states = layer(PairProjection.of(gates), torch.tensor([2, 5]))
    assert states[0, 2:].eq(0).all()
    assert states.isfinite().all()


def test_no_rows():
    assert BiLstm(6, 4)(
        PairProjection.of(torch.zeros(0, 5, 32)), torch.zeros(0, dtype=torch.long)
    ).shape == (0, 5, 8)


def test_order_reads_backward_from_each_rows_last_unit():
    order = RaggedOrder.of(torch.tensor([1, 3]), 4)
    assert order.sizes == [2, 1, 1]
    assert order.direction_T.tolist() == [0, 0, 1, 1, 0, 1, 0, 1]
    assert order.row_T.tolist() == [1, 0, 1, 0, 1, 1, 1, 1]
    assert order.unit_T.tolist() == [0, 0, 2, 0, 1, 1, 2, 0]


@torch.no_grad()
def test_long_rows_keep_their_state_under_autocast():
    """The cell adds up over units; in bf16 an addend below 1/256 of it would be lost."""
    layer = BiLstm(4, 4)
    layer.weight_hidden.zero_()
    half = torch.full((1, 400, 32), 0.02)
    half[..., 4:8] = half[..., 20:24] = 12.0  # the forget gates stay open
    exact = layer(PairProjection.of(half), torch.tensor([400]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = layer(PairProjection.of(half.bfloat16()), torch.tensor([400]))
    assert rough.dtype == torch.float32
    assert_close(rough, exact, rtol=0.03, atol=0.01)


@pytest.mark.parametrize("kind", ["of windows", "of pairs", "of every unit", "unscaled"])
def test_parts_give_the_states_and_gradients_of_their_sum(kind):
    torch.manual_seed(0)
    layer = BiLstm(6, 4).double()
    rows = torch.tensor([1, 0, 1])
    shape = {"of windows": (2, 5, 32), "of pairs": (3, 1, 32)}.get(kind, (3, 5, 32))
    gates = PairProjection(
        torch.randn(2, 5, 32, dtype=torch.double, requires_grad=True),
        rows,
        torch.randn(shape, dtype=torch.double, requires_grad=True),
        rows if kind == "of windows" else torch.arange(3),
        None if kind == "unscaled" else torch.randn(3, 5, dtype=torch.double, requires_grad=True),
    )
    inputs = [gates.first_BUK, gates.second_SVK, layer.weight_hidden]
    if gates.scale_NU is not None:
        inputs.append(gates.scale_NU)
    lengths = torch.tensor([3, 5, 4])
    weight = torch.randn(3, 5, 8, dtype=torch.double)
    found = layer(gates, lengths)
    wanted = layer(PairProjection.of(gates.dense()), lengths)
    assert_close(found, wanted)
    found, wanted = (
        torch.autograd.grad((states * weight).sum(), inputs) for states in (found, wanted)
    )
    for ours, theirs in zip(found, wanted, strict=True):
        assert_close(ours, theirs)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    layer = BiLstm(2, 2).double()
    gates = torch.randn(3, 4, 16, dtype=torch.double, requires_grad=True)

    def states(gates, weight):
        layer.weight_hidden = weight
        return layer(PairProjection.of(gates), torch.tensor([2, 4, 1]))

    weight = layer.weight_hidden
    del layer.weight_hidden
    assert torch.autograd.gradcheck(states, (gates, weight))


def test_extraction_gives_the_states_of_training():
    torch.manual_seed(0)
    layer = BiLstm(6, 4)
    gates = PairProjection.of(torch.randn(3, 5, 32))
    lengths = torch.tensor([3, 5, 4])
    trained = layer(gates, lengths)
    with torch.inference_mode():
        assert layer(gates, lengths).equal(trained)
