"""How an attribute of the range guides its tagging: prototype, dynamic network or BERT (Fig. 5).

Axes: B windows, U units, N pairs, C attributes, H hidden, K outputs of a projection.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ulsdram_core.encoders.pair_projection import PairProjection
from ulsdram_core.encoders.recurrent_encoder import StackedBiLstm, final_states
from ulsdram_core.frozen import Frozen
from ulsdram_core.precision import full_precision


@dataclass(frozen=True)
class PairFeatures:
    """[f ; g] of every pair, unmaterialised: f belongs to the window, only g to the pair."""

    base_BUH: Tensor
    window_N: Tensor
    scale_NU: Tensor | None = None
    """g = scale * f (prototype and BERT guidance, Eq. 8)."""
    second_NUH: Tensor | None = None
    """g itself (dynamic network)."""
    guide_NH: Tensor | None = None
    """With it g = scale * guide, the attribute's own vector (SUOpenTag)."""

    def projection(self, weight_KH2: Tensor, bias_K: Tensor) -> PairProjection:
        """Return W [f ; g] + b.

        W1 f and W2 f are computed once per window and shared by all its pairs.
        """
        hidden = self.base_BUH.shape[-1]
        first_BUK = F.linear(self.base_BUH, weight_KH2[:, :hidden], bias_K)
        weight_KH = weight_KH2[:, hidden:]
        every = torch.arange(len(self.window_N), device=self.window_N.device)
        if self.guide_NH is not None:
            second_N1K = F.linear(self.guide_NH, weight_KH)[:, None]
            return PairProjection(first_BUK, self.window_N, second_N1K, every, self.scale_NU)
        if self.scale_NU is not None:
            second_BUK = F.linear(self.base_BUH, weight_KH)
            return PairProjection(
                first_BUK, self.window_N, second_BUK, self.window_N, self.scale_NU
            )
        if self.second_NUH is not None:
            second_NUK = F.linear(self.second_NUH, weight_KH)
            return PairProjection(first_BUK, self.window_N, second_NUK, every)
        return PairProjection(first_BUK, self.window_N)

    def rows(self, part: slice) -> "PairFeatures":
        """Return the features of some of the pairs, with only the windows they need."""
        used, place = self.window_N[part].unique(return_inverse=True)
        return PairFeatures(
            self.base_BUH[used],
            place,
            None if self.scale_NU is None else self.scale_NU[part],
            None if self.second_NUH is None else self.second_NUH[part],
            None if self.guide_NH is None else self.guide_NH[part],
        )


class RangePolicyConfig(Frozen):
    """Which policy guides the tagging of an attribute."""

    kind: Literal["none", "prototype", "dynet", "bert", "suopentag"] = Field(
        "prototype",
        description="none: one tagger over all attributes' tags; suopentag: bert's names, read "
        "by a BiLSTM and added as vectors of their own",
    )
    dynet_rank: int | None = Field(
        None, ge=1, description="rank of each attribute's matrix; None is full H x H"
    )

    def build(self, num_attributes: int, hidden: int) -> nn.Module | None:
        """Build the policy for `num_attributes`; None for `none`."""
        if self.kind == "none":
            return None
        if self.kind == "prototype":
            return PrototypePolicy(num_attributes, hidden)
        if self.kind == "dynet":
            return DynetPolicy(num_attributes, hidden, self.dynet_rank)
        return BertPolicy() if self.kind == "bert" else SuOpenTagPolicy(hidden)

    @property
    def reads_names(self) -> bool:
        """Whether attributes are known by their names, so that new ones can be asked for."""
        return self.kind in ("bert", "suopentag")


class CosinePolicy(nn.Module):
    """Guidance of Eq. 8: a unit's feature weighted by its cosine to the attribute's vector."""

    def guide(self, features_BUH: Tensor, window_N: Tensor, guide_NH: Tensor) -> PairFeatures:
        """Return the guided features of the pairs (window, attribute vector)."""
        with full_precision(features_BUH.device):
            unit_BUH = F.normalize(features_BUH.float(), dim=-1)
            guide_NH = F.normalize(guide_NH.float(), dim=-1)
            scale_NU = torch.einsum("nuh,nh->nu", unit_BUH[window_N], guide_NH)
        return PairFeatures(features_BUH, window_N, scale_NU=scale_NU.to(features_BUH.dtype))


class PrototypePolicy(CosinePolicy):
    """One learned vector per attribute."""

    def __init__(self, num_attributes: int, hidden: int) -> None:
        super().__init__()
        self.prototypes = nn.Embedding(num_attributes, hidden)

    def forward(self, features_BUH: Tensor, window_N: Tensor, attribute_N: Tensor) -> PairFeatures:
        """Return the guided features of the pairs."""
        return self.guide(features_BUH, window_N, self.prototypes(attribute_N))


class BertPolicy(CosinePolicy):
    """The [CLS] of the encoded attribute name; it can guide attributes never seen in training.

    The names' vectors come from the model's own text encoder, once per forward (`names_CH`).
    """

    def forward(
        self, features_BUH: Tensor, window_N: Tensor, attribute_N: Tensor, names_CH: Tensor
    ) -> PairFeatures:
        """Return the guided features of the pairs."""
        return self.guide(features_BUH, window_N, names_CH[attribute_N])

    def name_vectors(self, encoded_CLH: Tensor, mask_CL: Tensor) -> Tensor:
        """Return one vector per encoded name, [C, H]."""
        del mask_CL
        return encoded_CLH[:, 0]


class SuOpenTagPolicy(BertPolicy):
    """SUOpenTag: the last state a of a BiLSTM over the name guides by [h ; cos(h, a) a]."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.name_lstm = StackedBiLstm(hidden, hidden)

    def forward(
        self, features_BUH: Tensor, window_N: Tensor, attribute_N: Tensor, names_CH: Tensor
    ) -> PairFeatures:
        """Return the guided features of the pairs."""
        guide_NH = names_CH[attribute_N]
        guided = self.guide(features_BUH, window_N, guide_NH)
        return PairFeatures(
            features_BUH, window_N, scale_NU=guided.scale_NU, guide_NH=guide_NH.to(features_BUH)
        )

    def name_vectors(self, encoded_CLH: Tensor, mask_CL: Tensor) -> Tensor:
        """Return the last states of both directions, [C, H]."""
        return final_states(self.name_lstm(encoded_CLH, mask_CL), mask_CL)


class DynetPolicy(nn.Module):
    """One matrix per attribute, applied to the features: [f ; f W_a]."""

    def __init__(self, num_attributes: int, hidden: int, rank: int | None = None) -> None:
        super().__init__()
        self.rank = rank
        std = hidden**-0.5  # keeps f W_a on the scale of f
        inner = rank or hidden
        self.matrices = nn.Embedding(num_attributes, hidden * inner)
        nn.init.normal_(self.matrices.weight, std=std)
        self.back = nn.Embedding(num_attributes, inner * hidden) if rank else None
        if self.back is not None:
            nn.init.normal_(self.back.weight, std=inner**-0.5)

    def forward(self, features_BUH: Tensor, window_N: Tensor, attribute_N: Tensor) -> PairFeatures:
        """Return [f ; f W_a] of the pairs; each distinct attribute's matrix is read once."""
        hidden = features_BUH.shape[-1]
        order = attribute_N.argsort(stable=True)
        used, counts = attribute_N.unique(return_counts=True)
        # One look-up: its gradient is as large as the whole table, so not one per attribute.
        inner = self.rank or hidden
        matrices = self.matrices(used).view(-1, hidden, inner).unbind()
        backs = self.back(used).view(-1, inner, hidden).unbind() if self.back else None
        mapped = []
        for place, rows in enumerate(order.split(counts.tolist())):
            part = features_BUH[window_N[rows]] @ matrices[place]
            mapped.append(part if backs is None else part @ backs[place])
        second_NUH = torch.cat(mapped)[order.argsort()] if mapped else features_BUH[window_N]
        return PairFeatures(features_BUH, window_N, second_NUH=second_NUH)
