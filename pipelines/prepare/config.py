"""What `prepare` is asked to do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.lake.pictures import PictureAddressConfig
from pipelines.lake.storage import Storage
from ulsdram_core.frozen import Frozen

Kind = Literal["mae", "mepave", "tagged"]


class TaggedColumns(Frozen):
    """Columns of a `tagged` input; a name that is not given is looked for under its usual names."""

    title: str | None = Field(None, description="Title column.")
    description: str | None = Field(None, description="Second text column.")
    image: str | None = Field(
        None, description="Picture bytes or names below --images, one or a list."
    )
    image_uri: str | None = Field(
        None, description="Addresses of pictures; relative ones start at --images or at the file."
    )
    specs: str | None = Field(None, description="Known attribute values.")
    gold: str | None = Field(None, description="Spans that are labelled already.")
    category: str | None = Field(None, description="Category column.")
    product_id: str | None = Field(None, description="Key column.")


class PrepareConfig(Frozen):
    """One preparation, from raw data to `OUT/{train,valid,test}/*.parquet`."""

    kind: Kind = Field(description="Layout of the input.")
    input: str = Field(description="Folder (or file) to read.")
    output: str = Field(description="Folder to make; one that prepare made before is replaced.")
    images: str | None = Field(None, description="Folder that picture names are relative to.")
    pictures: PictureAddressConfig = Field(
        PictureAddressConfig(), description="Where pictures named by address may be read from."
    )
    columns: TaggedColumns = Field(TaggedColumns(), description="Columns of a tagged input.")
    keep: tuple[str, ...] = Field((), description="Further columns to carry along, as strings.")
    use_gold: bool = Field(True, description="Keep spans that are labelled already.")
    corrections: str | None = Field(None, description="Table of reviewers' decisions.")
    splits: Literal["auto", "made"] = Field(
        "auto", description="auto: keep the input's splits; made: make all by title group."
    )
    drop_leaks: bool = Field(
        False, description="Drop products whose title group is also in a later split."
    )
    valid_share: float = Field(0.1, ge=0, lt=1, description="Part of the title groups for valid.")
    test_share: float = Field(0.1, ge=0, lt=1, description="Part of the title groups for test.")
    max_pictures: int = Field(4, ge=0, description="Pictures kept per product.")
    max_chars: int = Field(100_000, ge=1, description="Characters allowed per text column.")
    max_values: int = Field(2_000, ge=1, description="Attribute values allowed per product.")
    max_json_bytes: int = Field(512_000_000, ge=1, description="Bytes allowed per JSON file.")
    max_line_bytes: int = Field(16_000_000, ge=1, description="Bytes allowed per line.")
    max_problems: int = Field(1_000, ge=1, description="Problems listed in the report.")
    chunk_bytes: int = Field(16_000_000, ge=1, description="Bytes of a line file per task.")
    row_group_bytes: int = Field(48_000_000, ge=1, description="Bytes in memory per row group.")
    file_bytes: int = Field(256_000_000, ge=1, description="Bytes in memory per output file.")
    storage_options: dict[str, str] = Field(
        default_factory=dict, repr=False, description="Credentials and endpoint of the storage."
    )

    @model_validator(mode="after")
    def _check_shares(self) -> PrepareConfig:
        if self.valid_share + self.test_share >= 1:
            raise ValueError(
                f"valid and test take {self.valid_share} + {self.test_share} of the products, "
                "expected less than all; lower one of them"
            )
        return self

    def place(self, uri: str) -> Storage:
        """Return `uri` with this preparation's storage options."""
        return Storage.of(uri, self.storage_options)

    def shares(self) -> dict[str, float]:
        """Return the part of the title groups that each made split gets."""
        return {"valid": self.valid_share, "test": self.test_share}
