"""The stages as plain calls: decoded rows -> model -> table rows, and what an exception means."""

import time
from dataclasses import dataclass

import pyarrow as pa

from pipelines.errors import RunFailedError
from pipelines.lake.digests import as_hex
from pipelines.lake.storage import is_transient
from pipelines.nightly.plan.chunks import Chunk
from pipelines.nightly.work.decode import DecodedBatch, DecodeSettings, read_part
from pipelines.nightly.work.model import LoadedModel, ModelSource
from pipelines.nightly.work.staging import RowStamp, rows_table
from pipelines.nightly.work.waves import Done, Failure
from pipelines.normalization.normalizer import Normalizer
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import Extraction, Status


@dataclass(frozen=True, slots=True)
class Stages:
    """Everything the workers of a run need; picklable."""

    decode: DecodeSettings
    model: ModelSource
    stamp: RowStamp
    normalizer: Normalizer | None = None

    def check_model(self, model_id: str) -> None:
        """Refuse a loaded model that was put in the place of the one planned for."""
        if model_id != self.stamp.model_id:
            raise RunFailedError(
                f"loaded model {model_id}, expected {self.stamp.model_id}, which this night was "
                "planned for: the model was replaced while the night ran; run again"
            )


def extract_batch(model: LoadedModel, batch: DecodedBatch, stages: Stages) -> Done:
    """Table rows for all rows of a batch, settled ones included."""
    started = time.process_time()
    extracted = model.extract_decoded(batch.rows)
    rows = rows_table(
        [*extracted, *batch.settled],
        [*batch.row_hashes, *batch.settled_hashes],
        stages.stamp,
        normalizer=stages.normalizer,
    )
    return Done(
        rows=rows,
        decode_seconds=batch.cpu_seconds,
        model_seconds=time.process_time() - started,
        bytes_read=batch.bytes_read,
        broken_pictures=batch.broken_pictures,
    )


def settle_row(chunk: Chunk, failure: Failure, stages: Stages) -> pa.Table:
    """The table row of a single product that no worker survives."""
    assert len(chunk) == 1, len(chunk)
    product_id, input_hash = _read_key(chunk, stages.decode)
    extraction = Extraction(product_id, Status.QUARANTINED, failure.kind)
    return rows_table([extraction], [input_hash], stages.stamp)


def _read_key(chunk: Chunk, settings: DecodeSettings) -> tuple[str, str]:
    """Id and hash of one row, without decoding anything of it."""
    raw, _ = read_part(chunk.parts[0], settings.rows)
    return (raw.ids[0] or b"").decode(), as_hex(raw.hashes)[0]


def failure_of(error: Exception) -> Failure:
    """What an exception of a stage says about its rows; a failure of the storage rises again."""
    if is_transient(error) or isinstance(error, FileNotFoundError | PermissionError):
        raise error
    detail = f"{type(error).__name__}: {error}"[:300]
    # torch's own class is not imported here: decode workers run without torch
    is_memory = isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
    return Failure(Reason.OUT_OF_MEMORY if is_memory else Reason.POISON_ROW, detail)
