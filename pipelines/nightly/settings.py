"""The nightly job's configuration and one request to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipelines.command.recipes import read_recipe
from pipelines.lake.pictures import PictureAddressConfig
from pipelines.lake.tables import Columns
from pipelines.lake.uris import without_secrets
from pipelines.nightly.gate import GateConfig
from pipelines.nightly.monitoring import check_address
from pipelines.nightly.plan.chunks import ChunkConfig
from pipelines.nightly.plan.planner import EstimateConfig
from pipelines.nightly.plan.rows import RowSettings
from pipelines.nightly.table.lock import LockConfig
from pipelines.nightly.table.maintenance import MaintenanceConfig
from pipelines.nightly.work.executor import Executor, LocalExecutor
from pipelines.nightly.work.model import ModelFacts
from pipelines.nightly.work.open_work import AttemptConfig
from pipelines.nightly.work.ray_executor import RayExecutor, WorkerConfig
from pipelines.normalization.normalizer import Normalizer

Address = Annotated[str, AfterValidator(check_address)]
NIGHTLY = "nightly"


class NightlyConfig(BaseModel):
    """A nightly recipe: `kind = "nightly"`, all settings of the job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(NIGHTLY, pattern="^nightly$", description="what the recipe is for")
    columns: Columns = Field(default_factory=Columns, description="Names of the input's columns.")
    trusted_column: str | None = Field(
        None,
        description="A column that changes whenever a row does (a hash, or updated_at): rows are "
        "then compared without reading texts and pictures; those where it is null are read.",
    )
    num_buckets: int = Field(
        32, ge=1, le=4096, description="Partitions of a new table; fixed once it exists."
    )
    recheck_pictures_days: int | None = Field(
        None,
        ge=1,
        description="Days within which every row is extracted again where pictures are named by "
        "address, for a picture that was replaced at its address: each night about its share of "
        "the rows. Null: a row is extracted again when the row changes.",
    )
    retry_reasons: tuple[str, ...] = Field(
        (), description="Reasons whose rows are extracted again every night, changed or not."
    )
    executor: Literal["ray", "local"] = Field(
        "ray",
        description="local: all in this process, for small catalogues; a row that kills it "
        "is isolated by running the job again.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Numbers the model computes with; auto: bfloat16 on a GPU."
    )
    threads_per_model_worker: int = Field(
        1, ge=0, description="CPU threads of a model worker; 0: torch's choice."
    )
    normalization: str | None = Field(
        "shipped",
        description="Rules that fill `normalized`: a rules.toml, `shipped` for the ones that come "
        "with the system, null for none.",
    )
    webhook: Address | None = Field(
        None, repr=False, description="Address that is told about a failed run."
    )
    push_gateway: Address | None = Field(
        None,
        repr=False,
        description="Address of a Prometheus push gateway that gets every run's metrics.",
    )
    pictures: PictureAddressConfig = Field(default_factory=PictureAddressConfig)
    chunks: ChunkConfig = Field(default_factory=ChunkConfig)
    attempts: AttemptConfig = Field(default_factory=AttemptConfig)
    workers: WorkerConfig = Field(default_factory=WorkerConfig)
    gate: GateConfig = Field(default_factory=GateConfig)
    lock: LockConfig = Field(default_factory=LockConfig)
    maintenance: MaintenanceConfig = Field(default_factory=MaintenanceConfig)
    estimate: EstimateConfig = Field(default_factory=EstimateConfig)

    def build_executor(self) -> Executor:
        """Return where the stages run."""
        return LocalExecutor() if self.executor == "local" else RayExecutor(self.workers)

    def build_normalizer(self) -> Normalizer | None:
        """Return what fills the `normalized` column."""
        if self.normalization is None:
            return None
        is_shipped = self.normalization == "shipped"
        return Normalizer.load(None if is_shipped else self.normalization)

    def row_settings(self, facts: ModelFacts, options: Mapping[str, str]) -> RowSettings:
        """Return what to read of the input for this model."""
        missing = [name for name in facts.sources if name not in self.columns.sources]
        if missing:
            raise ValueError(
                f"the model reads text sources {', '.join(facts.sources)} but columns.sources "
                f"names no column for {', '.join(missing)}; add --set "
                f"columns.sources.{missing[0]}=COLUMN"
            )
        return RowSettings(
            columns=self.columns,
            sources=facts.sources,
            uses_pictures=facts.image is not None,
            trusted=self.trusted_column,
            options=dict(options),
        )


@dataclass(frozen=True, slots=True)
class NightlyRequest:
    """One call of the job."""

    inputs: tuple[str, ...]
    run_id: str | None = None
    is_full: bool = False
    is_replay: bool = False
    limit: int | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ValueError("found no --input, expected at least one; name the products table")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"found --limit {self.limit}, expected at least 1")

    def identity(self, facts: ModelFacts, settings: RowSettings) -> dict[str, Any]:
        """Return what an open run must share with a request to be continued by it."""
        names = ("inputs", "is_full", "is_replay", "limit")
        known = {name: getattr(self, name) for name in names}
        return {
            **known,
            "inputs": [without_secrets(uri) for uri in self.inputs],
            "model_id": facts.model_id,
            "rows": settings.signature(),
        }


def load_nightly_config(
    name: str = NIGHTLY,
    overrides: Sequence[str] = (),
    *,
    options: Mapping[str, str] | None = None,
) -> NightlyConfig:
    """Return a recipe by the name of a shipped one, by path or URI, with `a.b=value` overrides."""
    return read_recipe(NightlyConfig, name, overrides, example="chunks.rows=5000", options=options)
