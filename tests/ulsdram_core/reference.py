"""The model a second time, slow and plain, from the paper's equations: the tests' yardstick.

One product at a time, no padding, no batch; it shares nothing with the model but its weights.
Loaded by conftest.py as the fixture `reference`.
"""

import math

import torch
import torchcrf
from torch import Tensor, nn


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    out = x @ layer.weight.T
    return out if layer.bias is None else out + layer.bias


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def embed(model, piece_ids: Tensor, piece_types: Tensor) -> Tensor:
    """BERT's embedding layer: word + position + type, LayerNorm; [L, H]."""
    layer = model.text_encoder.embeddings
    rows = [
        layer.word_embeddings.weight[int(piece)]
        + layer.position_embeddings.weight[place]
        + layer.token_type_embeddings.weight[int(kind)]
        for place, (piece, kind) in enumerate(zip(piece_ids, piece_types, strict=True))
    ]
    return layer_norm(torch.stack(rows), layer.LayerNorm)


def multi_head(x: Tensor, weights: list[tuple[Tensor, Tensor]], heads: int) -> Tensor:
    """Softmax attention of a sequence to itself, head by head; weights of query, key, value."""
    query, key, value = (x @ weight.T + bias for weight, bias in weights)
    size = query.shape[1] // heads
    outs = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        outs.append(torch.softmax(scores, -1) @ value[:, part])
    return torch.cat(outs, -1)


def bert_layer(x: Tensor, layer: nn.Module, heads: int) -> Tensor:
    attention = layer.attention.self
    weights = [(p.weight, p.bias) for p in (attention.query, attention.key, attention.value)]
    mixed = linear(multi_head(x, weights, heads), layer.attention.output.dense)
    x = layer_norm(x + mixed, layer.attention.output.LayerNorm)
    inner = linear(gelu(linear(x, layer.intermediate.dense)), layer.output.dense)
    return layer_norm(x + inner, layer.output.LayerNorm)


def run_layers(model, x: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states of the last layer and of the one before, [S, H] each."""
    before = x
    for layer in model.text_encoder.layers:
        before, x = x, bert_layer(x, layer, model.text_encoder.config.num_attention_heads)
    return x, before


def attention(x_query: Tensor, x_key: Tensor, weights: tuple[nn.Linear, ...]) -> Tensor:
    """Eq. 2: (Q K' / sqrt D') V, without softmax; one position at a time."""
    query, key, value = linear(x_query, weights[0]), linear(x_key, weights[1]), None
    value = linear(x_key, weights[2])
    rows = []
    for q in query:
        row = torch.zeros(value.shape[1])
        for k, v in zip(key, value, strict=True):
            row = row + (q @ k) / math.sqrt(len(q)) * v
        rows.append(row)
    return torch.stack(rows)


def tir(fusion, text: Tensor, pictures: list[Tensor]) -> Tensor:
    """Eq. 3 to 5; several pictures contribute their mean."""
    mixed = attention(text, text, (fusion.text_query, fusion.text_key, fusion.text_value))
    weights = (fusion.region_query, fusion.region_key, fusion.region_value)
    for regions in pictures:
        mixed = mixed + attention(text, regions, weights) / len(pictures)
    return text + linear(mixed, fusion.out)


def concat(fusion, text: Tensor, pictures: list[Tensor]) -> Tensor:
    """ULS-VL: the text, then each picture's projected regions."""
    parts = [linear(regions, fusion.project) + fusion.region_type for regions in pictures]
    return torch.cat([text, *parts])


def self_attention(fusion, text: Tensor, pictures: list[Tensor]) -> Tensor:
    sequence = concat(fusion, text, pictures)
    layer = fusion.attention
    matrices, biases = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    mixed = multi_head(sequence, list(zip(matrices, biases, strict=True)), layer.num_heads)
    return layer_norm(sequence + linear(mixed, layer.out_proj), fusion.norm)


def gated(fusion, text: Tensor, pictures: list[Tensor]) -> Tensor:
    """M-JAVE: h = att(text) + sigmoid(w1 x + w2 v' + b) att(regions)."""
    query, key, value = linear(text, fusion.text_qkv).chunk(3, -1)
    scale = math.sqrt(query.shape[1])
    mixed = query @ key.T / scale @ value
    query = linear(text, fusion.region_query)
    for regions in pictures:
        key, value = linear(regions, fusion.region_key), linear(regions, fusion.region_value)
        gate = linear(text, fusion.gate_text) + linear(regions.mean(0), fusion.gate_picture)
        cross = query @ key.T / scale @ value
        mixed = mixed + torch.sigmoid(gate) * cross / len(pictures)
    return text + linear(mixed, fusion.out)


EARLY = {"tir": tir, "concat": concat, "self_attention": self_attention}


def encode(model, piece_ids: Tensor, piece_types: Tensor, pictures: list[Tensor]):
    """Encoded pieces [L, H] and attribute logits [C] (None without a head)."""
    kind = model.config.fusion.kind
    text = embed(model, piece_ids, piece_types)
    sequence = EARLY[kind](model.fusion, text, pictures) if kind in EARLY else text
    last, before = run_layers(model, sequence)
    last = last[: len(text)]
    if kind == "gated":
        last = gated(model.fusion, last, pictures)
    head = model.head
    if model.config.head == "none":
        return last, None
    if model.config.head == "paper":
        return last, last[0] @ head.score.weight.T
    both = torch.cat([before[0], last[0]])
    return last, linear(torch.relu(linear(both, head.mix)), head.score)


def guide(model, units: Tensor, attribute: int, name_ids: list[int]) -> Tensor:
    """Eq. 8, materialised: [f ; cos(P_a, f) f], or [f ; f W_a] for the dynamic network."""
    kind, policy = model.config.policy.kind, model.policy
    hidden = units.shape[1]
    if kind == "dynet":
        matrix = policy.matrices.weight[attribute].view(hidden, -1)
        if policy.back is not None:
            matrix = matrix @ policy.back.weight[attribute].view(-1, hidden)
        return torch.cat([units, units @ matrix], -1)
    if kind == "prototype":
        vector = policy.prototypes.weight[attribute]
    else:
        ids = torch.tensor(name_ids)
        vector = run_layers(model, embed(model, ids, torch.zeros_like(ids)))[0][0]
    rows = []
    for f in units:
        cosine = (vector @ f) / (vector.norm() * f.norm())
        rows.append(torch.cat([f, cosine * f]))
    return torch.stack(rows)


def as_lstm(layer) -> nn.LSTM:
    """torch's own bidirectional LSTM with a BiLstm's weights."""
    inputs, hidden = layer.weight_input.shape[1], layer.hidden
    lstm = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for place, suffix in enumerate(("", "_reverse")):
            part = slice(place * 4 * hidden, (place + 1) * 4 * hidden)
            getattr(lstm, f"weight_ih_l0{suffix}").copy_(layer.weight_input[part])
            getattr(lstm, f"weight_hh_l0{suffix}").copy_(layer.weight_hidden[place])
            getattr(lstm, f"bias_ih_l0{suffix}").copy_(layer.bias[part])
            getattr(lstm, f"bias_hh_l0{suffix}").zero_()
    return lstm


def emissions(model, features: Tensor) -> Tensor:
    """Tag scores [U, T] of one row of features."""
    tagger = model.tagger
    if tagger.lstm is not None:
        features = as_lstm(tagger.lstm)(features[None])[0][0]
    return linear(features, tagger.score)


def as_torchcrf(crf) -> torchcrf.CRF:
    """The upstream CRF with the same scores, in float64: its sums lose 2e-5 in fp32."""
    other = torchcrf.CRF(crf.num_tags, batch_first=True)
    other.load_state_dict(crf.state_dict())
    return other.double()


def log_likelihood(model, scores: Tensor, tags: list[int]) -> Tensor:
    if model.config.tagger.kind == "softmax":
        return sum(torch.log_softmax(row, -1)[tag] for row, tag in zip(scores, tags, strict=True))
    return as_torchcrf(model.tagger.tags)(scores[None].double(), torch.tensor([tags])).float()


def best_tags(model, scores: Tensor) -> list[int]:
    if model.config.tagger.kind == "softmax":
        return [int(row.argmax()) for row in scores]
    return as_torchcrf(model.tagger.tags).decode(scores[None].double())[0]


def tag(model, window, regions: list[Tensor], *, threshold: float, names: list[list[int]]):
    """Logits, and the tag scores of every attribute in the range (one entry, None, without it)."""
    ids, types = torch.from_numpy(window.piece_ids), torch.from_numpy(window.piece_types)
    last, logits = encode(model, ids, types, regions)
    units = torch.stack([last[int(place)] for place in window.unit_piece])
    if model.policy is None:
        return logits, {None: emissions(model, units)}
    chosen = [a for a, score in enumerate(torch.sigmoid(logits)) if score > threshold]
    return logits, {
        a: emissions(model, guide(model, units, a, names[a] if names else [])) for a in chosen
    }


def scramble(regions_RV: Tensor) -> Tensor:
    """The released code's mistake: [V, h, w].view(-1, V) without a transpose."""
    return regions_RV.T.contiguous().view(-1, regions_RV.shape[1])
