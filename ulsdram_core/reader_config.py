"""Which reader a model uses."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ulsdram_core.method.jave import JaveReader
from ulsdram_core.method.reader import (
    AlignedReader,
    BiLstmReader,
    OpenTagReader,
    Reader,
    SlotGateReader,
)


class ReaderConfig(BaseModel):
    """What stands between encoder and tagger."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["none", "bilstm", "opentag", "aligned", "slot_gate", "jave"] = Field(
        "none",
        description="bilstm: SUOpenTag; opentag: sigmoid attention; aligned: Attn-BiRNN; "
        "slot_gate: Slot-Gated; jave: JAVE, with an image encoder M-JAVE",
    )
    dim: int = Field(64, ge=1, description="inner size of the attention (M-JAVE: 200)")

    def build(self, hidden: int, region_dim: int, num_attributes: int) -> Reader:
        """Build for encoders of these sizes; `region_dim` is 0 without an image encoder."""
        if self.kind == "bilstm":
            return BiLstmReader(hidden)
        if self.kind == "opentag":
            return OpenTagReader(hidden, self.dim)
        if self.kind == "aligned":
            return AlignedReader(hidden, self.dim)
        if self.kind == "slot_gate":
            return SlotGateReader(hidden, self.dim)
        if self.kind == "jave":
            return JaveReader(hidden, region_dim, num_attributes, self.dim)
        return Reader(hidden)
