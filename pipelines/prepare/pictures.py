"""Pictures that a data set names, read by the rules of `lake/pictures.py` and tried at once."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.lake.pictures import PictureReader
from pipelines.lake.storage import Storage
from pipelines.prepare.config import PrepareConfig
from ulsdram_core.image import ImageConfig, decode_picture

# A check decodes at this side: enough to find truncated data, cheap through scaled decoding.
_CHECK = ImageConfig(size=64)


@dataclass(frozen=True, slots=True)
class PictureFolder:
    """A folder of pictures; paths inside a data set are not trusted to stay in it."""

    root: Storage
    reader: PictureReader

    @staticmethod
    def of(config: PrepareConfig) -> PictureFolder | None:
        """Return the folder that names are relative to, if the request has one."""
        return (
            PictureFolder(config.place(config.images), reader_of(config)) if config.images else None
        )

    def read(self, name: str) -> bytes:
        """Return the picture `name`, encoded; PictureError where there is no usable one."""
        return check_picture(self.reader.read_name(name, self.root))

    def read_address(self, address: str) -> bytes:
        """Return the picture at an address, relative to this folder if it has no scheme."""
        return check_picture(self.reader.read(address, self.root))


def reader_of(config: PrepareConfig) -> PictureReader:
    """Return what reads the pictures of this request; its --images may hold them too."""
    places = [place for place in (config.input, config.images) if place]
    roots = (*config.pictures.roots, *([config.images] if config.images else []))
    rules = config.pictures.model_copy(update={"roots": roots})
    return rules.build(places, config.storage_options, max_bytes=_CHECK.max_bytes)


def check_picture(data: bytes) -> bytes:
    """Return `data` itself when it decodes; PictureError otherwise."""
    decode_picture(data, _CHECK)
    return data
