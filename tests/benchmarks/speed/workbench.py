"""What the sections share: how much to measure, models made once, a folder for tables."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from speed.catalogue import listings
from speed.fitted import LARGE, SMALL, TINY, Recipe, make
from speed.timing import Peak, measure_bandwidth, measure_peak

from ulsdram_core.checkpoint import save_model
from ulsdram_core.extractor import Extractor
from ulsdram_core.parts import ModelParts
from ulsdram_core.precision import Precision
from ulsdram_core.schema import DecodedProduct, Product


@dataclass(frozen=True)
class Sizes:
    """How much each section measures."""

    rounds: int = 5
    large_products: int = 64
    """Products a round, in process and by component."""
    small_products: int = 256
    part_products: int = 16
    """Products of the one batch on which single optimisations are measured."""
    train_batch: int = 8
    train_steps: int = 5
    curve_steps: int = 20
    """Steps whose losses are followed."""
    curve_on_small: bool = True
    """Whether on the small model; else on the tiny one."""
    ray_rows: int = 4000
    ray_peer_rows: int = 400
    """Rows for docs-style pipelines with the released code inside, which are slower."""
    ray_batch_rows: int = 64
    long_run: int = 100_000
    """Products of the run whose last tenth is compared with its first; 0: not run."""
    attributes: tuple[int, ...] = (26, 200, 2000)
    tries: bool = True
    """Whether to try what the product does not use: torch.compile, int8."""


FULL = Sizes()
QUICK = Sizes(
    rounds=3,
    large_products=8,
    small_products=32,
    part_products=4,
    train_batch=4,
    train_steps=2,
    curve_on_small=False,
    ray_rows=320,
    ray_peer_rows=64,
    ray_batch_rows=16,
    long_run=0,
    attributes=(26, 2000),
    tries=False,
)
# Everything once and tiny: shows that the harness runs, measures nothing.
SMOKE = Sizes(
    rounds=1,
    large_products=8,
    small_products=8,
    part_products=8,
    train_batch=4,
    train_steps=2,
    curve_on_small=False,
    ray_rows=64,
    ray_peer_rows=32,
    ray_batch_rows=16,
    long_run=0,
    attributes=(26, 60),
    tries=False,
)


@dataclass(frozen=True)
class Subject:
    """A fitted model and products that it has not seen."""

    name: str
    parts: ModelParts
    products: list[Product]

    @cached_property
    def extractor(self) -> Extractor:
        """The product's way of using it, on the CPU: the peers share the parts and run there."""
        return Extractor(self.parts, device="cpu")

    @cached_property
    def decoded(self) -> list[DecodedProduct]:
        """The products with pixels."""
        return [self.extractor.decode(product) for product in self.products]


class Workbench:
    """Models are made when a section first asks; `tiny` makes all of them tiny (smoke runs)."""

    def __init__(self, sizes: Sizes, folder: Path, *, tiny: bool = False) -> None:
        self.sizes = sizes
        self.folder = folder
        self.is_tiny = tiny
        self._peaks: dict[Precision, Peak] = {}

    @cached_property
    def large(self) -> Subject:
        """ResNet-152 + BERT-base: the paper's encoders."""
        return self._subject("ResNet-152 + BERT-base", LARGE, self.sizes.large_products)

    @cached_property
    def small(self) -> Subject:
        """MobileNetV2 + MiniLM."""
        return self._subject("MobileNetV2 + MiniLM-L6", SMALL, self.sizes.small_products)

    @cached_property
    def tiny(self) -> Subject:
        """Two layers of each: overheads show."""
        return self._subject("tiny", TINY, 256)

    def peak(self, precision: Precision) -> Peak:
        """The machine's, measured when first asked for."""
        if precision not in self._peaks:
            self._peaks[precision] = measure_peak(precision)
        return self._peaks[precision]

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second from and to memory."""
        return measure_bandwidth()

    @cached_property
    def small_folder(self) -> Path:
        """The small model's directory."""
        return save_model(self.small.parts, self.folder / "small")

    def _subject(self, name: str, recipe: Recipe, count: int) -> Subject:
        recipe = TINY if self.is_tiny else recipe
        name = "tiny" if recipe.text_encoder["name"] == "tiny" else name
        return Subject(name, make(recipe), listings(count, size=recipe.picture_size, seed=5))
