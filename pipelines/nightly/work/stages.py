"""The stages as plain calls: decoded rows -> model -> table rows -> a staged part.

An exception of the model is cut down here, at once, until the row that raises it is alone: it is
quarantined and all others are extracted. Only what a storage does rises. A device that is broken
blames no row: the process that holds it ends.
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.errors import RunFailedError
from pipelines.lake.storage import Storage, is_transient
from pipelines.nightly.plan.chunks import Range, WorkList
from pipelines.nightly.work.decode import DecodedBatch, DecodeSettings, key_of
from pipelines.nightly.work.extracted import RowStamp, rows_table
from pipelines.nightly.work.model import LoadedModel, ModelSource
from pipelines.nightly.work.staging import Account, Receipt, write_part
from pipelines.normalization.normalizer import Normalizer
from ulsdram_core.reasons import Reason
from ulsdram_core.schema import DecodedProduct, Extraction, Status

_DEVICE_ERROR = re.compile(r"CUDA error|CUBLAS_STATUS|CUDNN_STATUS|cudaError|HIP error")
BROKEN_DEVICE = 75  # exit code of a worker whose device is broken


@dataclass(frozen=True, slots=True)
class Stages:
    """Everything the workers of a run need; picklable."""

    work: WorkList
    decode: DecodeSettings
    model: ModelSource
    stamp: RowStamp
    staging: Storage
    generation: int
    normalizer: Normalizer | None = None

    def load_model(self) -> LoadedModel:
        """Return the model; refused when it was put in the place of the one planned for."""
        model = self.model.load()
        if model.model_id != self.stamp.model_id:
            raise RunFailedError(
                f"loaded model {model.model_id}, expected {self.stamp.model_id}, which this night "
                "was planned for: the model was replaced while the night ran; run again"
            )
        return model


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a batch became: table rows, or word that its input has changed."""

    piece: Range
    rows: pa.Table
    account: Account
    finished: float
    changed: str = ""


def extract_batch(
    model: LoadedModel,
    batch: DecodedBatch,
    stages: Stages,
    *,
    on_broken_device: Callable[[], None] = lambda: os._exit(BROKEN_DEVICE),
) -> Extracted:
    """Return table rows for all rows of a batch, settled ones included."""
    started = time.process_time()
    extracted = _extract(model, batch.rows, on_broken_device)
    lost = sum(item.reason in (Reason.POISON_ROW, Reason.OUT_OF_MEMORY) for item in extracted)
    rows = rows_table(
        [*extracted, *batch.settled],
        [*batch.row_hashes, *batch.settled_hashes],
        stages.stamp,
        normalizer=stages.normalizer,
    )
    spent = Account(model_seconds=time.process_time() - started, poison_rows=lost)
    piece = batch.start, batch.end
    return Extracted(piece, rows, batch.account + spent, time.time(), batch.changed)


def stage(found: Sequence[Extracted], stages: Stages) -> list[Receipt]:
    """Write rows as one part; its receipt, and one for each input that has changed."""
    receipts = [
        Receipt(stages.generation, (item.piece,), changed=item.changed)
        for item in found
        if item.changed
    ]
    whole = [item for item in found if not item.changed]
    if whole:
        path = write_part(stages.staging, pa.concat_tables([item.rows for item in whole]))
        account = sum((item.account for item in whole), Account())
        ranges = tuple(item.piece for item in whole)
        batches = tuple((item.finished, item.account.core_seconds) for item in whole)
        receipts.append(Receipt(stages.generation, ranges, batches, account, path))
    return receipts


def settle_row(position: int, reason: Reason, stages: Stages) -> Receipt:
    """Stage a single product that no worker survives as quarantined."""
    product_id, input_hash = key_of(stages.work, position, stages.decode)
    extraction = Extraction(product_id, Status.QUARANTINED, reason)
    rows = rows_table([extraction], [input_hash], stages.stamp)
    found = Extracted((position, position + 1), rows, Account(poison_rows=1), time.time())
    (receipt,) = stage([found], stages)
    return receipt


def _extract(
    model: LoadedModel, rows: Sequence[DecodedProduct], on_broken_device: Callable[[], None]
) -> list[Extraction]:
    """Return one extraction per row, halving the rows as long as the model raises."""
    if not rows:
        return []
    try:
        return model.extract_decoded(rows)
    except Exception as error:  # the quarantine boundary
        if is_transient(error) or isinstance(error, FileNotFoundError | PermissionError):
            raise
        reason = _reason_of(error)
        if reason is None:
            on_broken_device()
            raise
        if len(rows) == 1:
            return [Extraction(rows[0].product_id, Status.QUARANTINED, reason)]
    middle = len(rows) // 2
    halves = rows[:middle], rows[middle:]
    return [item for half in halves for item in _extract(model, half, on_broken_device)]


def _reason_of(error: Exception) -> Reason | None:
    """Return what an exception says of its rows; None: the device is broken, whatever they are."""
    name = type(error).__name__
    # torch's own classes are not imported here: decode workers run without torch
    if isinstance(error, MemoryError) or "OutOfMemory" in name:
        return Reason.OUT_OF_MEMORY
    if name == "AcceleratorError" or _DEVICE_ERROR.search(str(error)):
        return None
    return Reason.POISON_ROW
