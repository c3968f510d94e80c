"""Each reader against its equations, written out one piece at a time."""

import torch
from torch.testing import assert_close

from ulsdram_core.method.reader import (
    AlignedReader,
    BiLstmReader,
    OpenTagReader,
    Reader,
    SlotGateReader,
)
from ulsdram_core.method.regions import PictureRegions

HIDDEN, DIM = 6, 4
MASK = torch.arange(5)[None] < torch.tensor([[5], [3]])
NOTHING = PictureRegions(torch.zeros(0, 0, 0), torch.zeros(0, dtype=torch.long), 2)


def read(reader):
    """Run a reader on two padded texts; what lies beyond the second text is noise."""
    torch.manual_seed(1)
    for parameter in reader.parameters():
        parameter.data.normal_(std=0.7)
    encoded, sentence = torch.randn(2, 5, HIDDEN), torch.randn(2, HIDDEN)
    with torch.no_grad():
        return encoded, sentence, reader(encoded, MASK, sentence, NOTHING)


def texts(encoded, sentence, reading):
    for row, length in enumerate((5, 3)):
        yield (
            encoded[row, :length],
            sentence[row],
            reading.pieces_BLF[row, :length],
            reading.sentence_BF[row],
        )


def additive(scores, query, key, activation):
    """v . activation(W q + b + U k) + b'."""
    inner = scores.query.weight @ query + scores.query.bias + scores.key.weight @ key
    return scores.score.weight[0] @ activation(inner) + scores.score.bias[0]


def test_no_reader_passes_everything_on():
    encoded, sentence, reading = read(Reader(HIDDEN))
    assert reading.pieces_BLF is encoded
    assert reading.sentence_BF is sentence


def test_opentag_sums_over_the_text_with_sigmoid_weights():
    reader = OpenTagReader(HIDDEN, DIM)
    for h, sentence, found, head in texts(*read(reader)):
        for place, piece in enumerate(h):
            wanted = torch.zeros(HIDDEN)
            for other in h:
                wanted += torch.sigmoid(additive(reader.scores, piece, other, torch.tanh)) * other
            assert_close(found[place], wanted)
        assert_close(head, sentence)


def test_aligned_attention_stands_beside_each_state_and_is_pooled():
    reader = AlignedReader(HIDDEN, DIM)
    assert (reader.width, reader.sentence_width) == (2 * HIDDEN, HIDDEN)
    for h, _, found, head in texts(*read(reader)):
        for place, piece in enumerate(h):
            scores = [additive(reader.scores, piece, other, torch.tanh) for other in h]
            weights = torch.softmax(torch.stack(scores), 0)
            context = sum(w * other for w, other in zip(weights, h, strict=True))
            assert_close(found[place], torch.cat([piece, context]))
        weights = torch.softmax(torch.stack([reader.pool(piece)[0] for piece in h]), 0)
        assert_close(head, sum(w * piece for w, piece in zip(weights, h, strict=True)))


def test_slot_gate_weighs_the_context_by_slot_and_intent():
    reader = SlotGateReader(HIDDEN, DIM)

    def context(scores, query, h):
        values = [additive(scores, query, other, torch.sigmoid) for other in h]
        weights = torch.softmax(torch.stack(values), 0)
        return sum(w * other for w, other in zip(weights, h, strict=True))

    for h, sentence, found, head in texts(*read(reader)):
        intent = context(reader.intent_scores, sentence, h)
        assert_close(head, sentence + intent)
        for place, piece in enumerate(h):
            slot = context(reader.slot_scores, piece, h)
            gate = (reader.gate.weight[0] * torch.tanh(slot + reader.intent.weight @ intent)).sum()
            assert_close(found[place], piece + gate * slot)


def test_bilstm_reader_ignores_padding():
    encoded, sentence, together = read(BiLstmReader(HIDDEN))
    reader = BiLstmReader(HIDDEN)
    _, _, together = read(reader)
    with torch.no_grad():
        alone = reader(encoded[1:, :3], MASK[1:, :3], sentence[1:], NOTHING)
    assert_close(alone.pieces_BLF[0], together.pieces_BLF[1, :3])
