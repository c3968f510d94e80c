"""The feature decoder: from (guided) unit features to tag scores and tag sequences.

Axes: N rows (pairs, or windows when no policy guides) or spans, U units, T tags, H hidden.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ulsdram_core.encoders.bilstm import BiLstm
from ulsdram_core.frozen import Frozen
from ulsdram_core.method.crf import CRF, TagSpans
from ulsdram_core.method.range_policy import PairFeatures
from ulsdram_core.precision import full_precision

# LSTM states held at once when extracting: an unsure head may put 64 attributes of each window in
# the range.
MAX_STATES = 2**25


class TaggerConfig(Frozen):
    """Which feature decoder a model uses."""

    kind: Literal["softmax", "crf", "bilstm_crf"] = Field(
        "bilstm_crf", description="softmax: each unit alone; bilstm_crf: the paper's decoder"
    )
    hidden: int | None = Field(
        None, ge=1, description="LSTM size per direction; None: half of the feature's width"
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout before the last layer")

    def build(self, width: int, num_tags: int) -> "Tagger":
        """Build for features of `width` numbers and `num_tags` tags."""
        return Tagger(self, width, num_tags)


class IndependentTags(nn.Module):
    """Tag scores normalised unit by unit, with the interface of `CRF`."""

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor, reduction: str) -> Tensor:
        """Return the log-likelihood of tag sequences [N] (reduction none) or their sum."""
        log_probs = F.log_softmax(emissions.float(), dim=-1)
        chosen = log_probs.gather(-1, tags[..., None])[..., 0] * mask
        return chosen.sum(1) if reduction == "none" else chosen.sum()

    def viterbi(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Return the best tags [N, U]; 0 at padding."""
        return emissions.argmax(-1) * mask

    def span_log_prob(self, emissions: Tensor, spans: TagSpans, mask: Tensor) -> Tensor:
        """Return log P(tagged exactly B I..I and not continued) of each span [N]."""
        # float64, since the difference of two running sums is taken below.
        log_probs = F.log_softmax(emissions.double(), dim=-1)[spans.sequence]
        every = torch.arange(len(spans.start), device=emissions.device)
        inside_NU = log_probs[every, :, spans.inside_tag]
        first = log_probs[every, spans.start, spans.begin_tag]
        # Cumulative sums give the inside tags' sum over any stretch by one difference.
        total_NU = inside_NU.cumsum(1)
        middle = total_NU[every, spans.end - 1] - total_NU[every, spans.start]
        after = spans.end.clamp(max=emissions.shape[1] - 1)
        continued = inside_NU[every, after].exp().clamp(max=1 - 1e-12)
        ends_row = spans.end >= mask.sum(1)[spans.sequence]
        return first + middle + torch.log1p(-continued).masked_fill(ends_row, 0.0)


class Tagger(nn.Module):
    """Scores tags of unit features and turns scores into sequences and span probabilities."""

    def __init__(self, config: TaggerConfig, width: int, num_tags: int) -> None:
        super().__init__()
        self.lstm: BiLstm | None = None
        if config.kind == "bilstm_crf":
            # Paper and released code: 2H -> H per direction for pairs, H -> H/2 without a policy.
            hidden = config.hidden or width // 2
            self.lstm = BiLstm(width, hidden)
            self.score = nn.Linear(2 * hidden, num_tags)
        else:
            self.score = nn.Linear(width, num_tags)
        self.dropout = nn.Dropout(config.dropout)
        self.tags = (
            IndependentTags() if config.kind == "softmax" else CRF(num_tags, batch_first=True)
        )

    def forward(self, features: PairFeatures, mask_NU: Tensor) -> Tensor:
        """Return tag scores [N, U, T] in fp32."""
        if self.lstm is None:
            scores = features.projection(self.score.weight, self.score.bias)
            emissions_NUT = scores.dense().float()
        else:
            emissions_NUT = self._decode_features(features, mask_NU)
        if not torch.is_grad_enabled():
            return emissions_NUT
        # DistributedDataParallel takes what the forward pass does not touch for unused, but the
        # CRF's scores are used in the loss.
        return emissions_NUT + 0.0 * sum(p.sum() for p in self.tags.parameters())

    def _decode_features(self, features: PairFeatures, mask_NU: Tensor) -> Tensor:
        assert self.lstm is not None
        num_rows, num_units = mask_NU.shape
        size = max(1, num_rows)
        if not torch.is_grad_enabled():
            size = max(1, MAX_STATES // max(1, 2 * num_units * self.lstm.hidden))
        parts = []
        for start in range(0, max(1, num_rows), size):
            rows = slice(start, start + size)
            some = features if size >= num_rows else features.rows(rows)
            gates = some.projection(self.lstm.weight_input, self.lstm.bias)
            hidden_NUH = self.lstm(gates, mask_NU[rows].sum(1))
            with full_precision(mask_NU.device):
                parts.append(self.score(self.dropout(hidden_NUH.float())))
        return torch.cat(parts)

    def nll(self, emissions_NUT: Tensor, tags_NU: Tensor, mask_NU: Tensor) -> Tensor:
        """Return the negative log-likelihood of each row's tags, [N]."""
        if not len(emissions_NUT):
            return emissions_NUT.sum((1, 2))
        return -self.tags(emissions_NUT, tags_NU, mask_NU, reduction="none")

    def decode(self, emissions_NUT: Tensor, mask_NU: Tensor) -> Tensor:
        """Return the best tag sequences [N, U]; 0 at padding."""
        if not len(emissions_NUT):
            return emissions_NUT.new_zeros(emissions_NUT.shape[:2], dtype=torch.long)
        return self.tags.viterbi(emissions_NUT, mask_NU)

    def span_log_prob(self, emissions_NUT: Tensor, spans: TagSpans, mask_NU: Tensor) -> Tensor:
        """Return log P(tagged exactly B I..I and not continued) of each span."""
        if not len(spans.start):
            return emissions_NUT.new_zeros(0)
        return self.tags.span_log_prob(emissions_NUT, spans, mask_NU)
