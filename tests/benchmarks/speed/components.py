"""Where an extraction's time goes, part by part, with the limit beside each part."""

from collections.abc import Sequence
from dataclasses import dataclass

from speed.bare import bare_decode, bare_parquet, bare_values
from speed.catalogue import photo
from speed.report import Section
from speed.timing import interleaved, median
from speed.walk import Clock, Counter, walk
from speed.workbench import Subject, Workbench
from torch import nn

from pipelines.lake.storage import Storage
from pipelines.nightly.work.extracted import RowStamp, rows_table
from pipelines.nightly.work.staging import write_part
from ulsdram_core.extractor import Extractor
from ulsdram_core.image import decode_picture
from ulsdram_core.method.model import UlsDram
from ulsdram_core.schema import Extraction

# Below this the arithmetic is not what a part is about.
LEAST_GFLOP = 0.005
# Rows that are written at once.
ROWS = 1024
BUCKETS = 32
# Decodes again before it does its own work.
SPANS = "span probabilities"
# The part whose time another one bounds from below, and what the other one is.
BARE = {
    "decode + resize": "Pillow's decoding alone",
    "values": "the same objects alone",
    "Parquet": "pyarrow alone",
}


@dataclass(frozen=True)
class Part:
    """Seconds of a product; `limit` None where nothing sensible bounds it."""

    seconds: float
    gflop: float = 0.0
    limit: float | None = None
    limited_by: str = "-"


def run(bench: Workbench) -> Section:
    """The large model's parts and the small one's."""
    columns = ("products/s", "ms/product", "share", "GFLOP/s", "limit ms", "of limit", "limit is")
    section = Section("Components", ("model", "part", *columns))
    for subject in (bench.large, bench.small)[: 1 if bench.is_tiny else 2]:
        parts = _measure(subject, bench)
        _add_rows(section, subject.name, parts)
        section.figures[subject.name] = {
            name: {
                "seconds_per_product": part.seconds,
                "gflop_per_product": part.gflop,
                "limit_seconds": part.limit,
            }
            for name, part in parts.items()
        }
    _decode_rows(section, bench)
    precision = bench.large.extractor.precision
    section.notes += [
        "products/s: if there were nothing else; pictures of 224 px, larger ones in the last rows",
        f"arithmetic: by the peak in {precision}, {bench.peak(precision).best:.0f} GFLOP/s; "
        "weights: each of the part's read once a batch; bytes: what has to be read and written; "
        f"both by a large copy's {bench.bandwidth / 1e9:.1f} GB/s",
        "tokenizer: no limit, as it remembers the pieces of words that it has seen, which a "
        "tokenizer's own call does not",
        f"Arrow, Parquet: {ROWS} rows at once, Parquet sorted by bucket, to a file",
    ]
    return section


def _measure(subject: Subject, bench: Workbench) -> dict[str, Part]:
    extractor, count = subject.extractor, len(subject.products)
    extractions = extractor.extract_decoded(subject.decoded)
    staging = Storage.of(bench.folder / f"staging {subject.name}")
    rounds = []
    for number in range(1 + bench.sizes.rounds):
        clock = Clock()
        _decode(subject, clock)
        walk(extractor, subject.decoded, clock)
        with clock("bare values"):
            bare_values(extractions)
        _write(extractions, staging, clock)
        if number:
            rounds.append(clock)
    seconds = {name: median([one.total[name] for one in rounds]) for name in rounds[0].total}
    for name in ("Arrow rows", "Parquet", "bare Parquet"):
        seconds[name] *= count / ROWS
    seconds[SPANS] = max(0.0, seconds[SPANS] - seconds["CRF decode"])
    moved = {name: float(size) for name, size in rounds[0].bytes.items()}
    moved["Arrow rows"] *= count / ROWS
    bare = {name: seconds.pop(f"bare {name}") for name in BARE}
    limits = _limits(extractor, subject, bench, moved)
    limits |= {name: Part(0.0, 0.0, bare[name], BARE[name]) for name in BARE}
    parts = {}
    for name, spent in seconds.items():
        known = limits.get(name, Part(0.0))
        limit = None if known.limit is None else known.limit / count
        parts[name] = Part(spent / count, known.gflop / count, limit, known.limited_by)
    return parts


def _decode(subject: Subject, clock: Clock) -> None:
    image = subject.extractor.config.image
    with clock("decode + resize"):
        for product in subject.products:
            decode_picture(product.pictures[0], image)
    with clock("bare decode + resize"):
        for product in subject.products:
            bare_decode(product.pictures[0], image.size)


def _write(extractions: Sequence[Extraction], staging: Storage, clock: Clock) -> None:
    """Result rows as the nightly job writes them."""
    rows = [extractions[i % len(extractions)] for i in range(ROWS)]
    with clock("Arrow rows"):
        table = rows_table(rows, ["0" * 32] * ROWS, RowStamp("model", "run", BUCKETS))
    clock.bytes["Arrow rows"] += table.nbytes
    with clock("Parquet"):
        write_part(staging, table)
    with clock("bare Parquet"):
        bare_parquet(table)


def _limits(
    extractor: Extractor, subject: Subject, bench: Workbench, moved: dict[str, float]
) -> dict[str, Part]:
    """For all products: the larger of arithmetic and bytes, by what this machine reaches."""
    counter = Counter()
    walk(extractor, subject.decoded, counter)
    peak = bench.peak(extractor.precision).best
    weights = {
        name: size * counter.calls[name] for name, size in weight_bytes(extractor.model).items()
    }
    limits = {}
    for name in {**counter.total, **moved}:
        gflop = counter.total.get(name, 0.0) / 1e9
        reasons = {
            "arithmetic": gflop / peak,
            "weights": weights.get(name, 0.0) / bench.bandwidth,
            "bytes": moved.get(name, 0.0) / bench.bandwidth,
        }
        reason = max(reasons, key=lambda one: reasons[one])
        if reasons[reason]:
            limits[name] = Part(0.0, gflop, reasons[reason], reason)
    return limits


def weight_bytes(model: UlsDram) -> dict[str, int]:
    """Bytes of each part's weights; of the embeddings only a few rows are read."""
    parts: dict[str, nn.Module | None] = {
        "image encoder": model.image_encoder,
        "embeddings, TIR": model.fusion,
        "text encoder": model.text_encoder.layers,
        "attribute head": model.head,
        "guidance, BiLSTM": model.tagger.lstm,
    }
    return {
        name: sum(parameter.nbytes for parameter in part.parameters()) if part is not None else 0
        for name, part in parts.items()
    }


def _add_rows(section: Section, model: str, parts: dict[str, Part]) -> None:
    total = sum(part.seconds for part in parts.values())
    whole = Part(
        total,
        sum(part.gflop for part in parts.values()),
        sum(part.limit or 0.0 for part in parts.values()),
        "the sum",
    )
    for name, part in {**parts, "all": whole}.items():
        section.rows.append((model, name, *_cells(part, total)))


def _cells(part: Part, total: float | None) -> tuple[float | str | None, ...]:
    spent, limit = part.seconds, part.limit
    return (
        1 / spent if spent else None,
        1e3 * spent,
        spent / total if total else None,
        part.gflop / spent if spent and part.gflop > LEAST_GFLOP else None,
        None if limit is None else 1e3 * limit,
        limit / spent if spent and limit is not None else None,
        part.limited_by,
    )


def _decode_rows(section: Section, bench: Workbench) -> None:
    image = bench.large.extractor.config.image
    for width, height in ((500, 375), (1000, 1000)):
        data = photo(width, height)
        calls = {
            "ours": lambda data=data: [decode_picture(data, image) for _ in range(10)],
            "bare": lambda data=data: [bare_decode(data, image.size) for _ in range(10)],
        }
        times = interleaved(calls, bench.sizes.rounds)
        seconds, limit = (median(times[name]) / 10 for name in ("ours", "bare"))
        name = f"decode + resize of {width}x{height}"
        part = Part(seconds, 0.0, limit, BARE["decode + resize"])
        section.rows.append(("one core", name, *_cells(part, None)))
        section.figures[name] = {"seconds_per_product": seconds, "limit_seconds": limit}
