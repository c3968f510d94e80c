import json
from collections import Counter

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cluster.tasks import map_here
from pipelines.lake.storage import Storage
from pipelines.prepare.pairs.catalogs import (
    Ties,
    component_sizes,
    merge,
    placeholder_rows,
    repeated_rows,
)
from pipelines.prepare.pairs.duplicates import (
    DuplicateConfig,
    Edges,
    StoredTraces,
    block_masks,
    edge_tasks,
    find_edges,
)
from pipelines.prepare.pairs.noise import title_key, words_of
from pipelines.prepare.pairs.run import PairConfig, PairRequest, prepare_pairs
from pipelines.prepare.pairs.scan import SCHEMA, ScanSettings, trace_rows
from ulsdram_core.demo import DemoConfig, generate
from ulsdram_core.demo.catalog import catalog_root
from ulsdram_core.demo.dice import Dice


def slow_components(num_rows, edges):
    groups = {i: {i} for i in range(num_rows)}
    for a, b in edges:
        joined = groups[a] | groups[b]
        for i in joined:
            groups[i] = joined
    return [min(groups[i]) for i in range(num_rows)]


@pytest.mark.parametrize("seed", range(5))
def test_components_equal_a_slow_union(seed):
    rng = np.random.default_rng(seed)
    edges = rng.integers(0, 60, (rng.integers(0, 60), 2))
    found = merge(np.arange(60), edges)
    assert merge(merge(np.arange(60), edges[:20]), edges[20:]).tolist() == found.tolist()
    assert found.tolist() == slow_components(60, edges.tolist())
    sizes = Counter(found.tolist())
    assert component_sizes(found).tolist() == [sizes[label] for label in found.tolist()]


def test_a_long_chain_is_one_component():
    chain = np.stack([np.arange(4999), np.arange(1, 5000)], axis=1)
    assert not merge(np.arange(5000), np.random.default_rng(0).permutation(chain)).any()


@pytest.mark.parametrize("distance", [0, 3, 6, 8])
def test_near_numbers_agree_under_some_mask(distance):
    masks = block_masks(distance)
    rng = np.random.default_rng(distance)
    for _ in range(200):
        flips = sum(1 << int(bit) for bit in rng.choice(64, distance, replace=False))
        assert any(not flips & mask for mask in masks)
    assert all(mask.bit_count() >= 3 * (64 // (distance + 3)) for mask in masks)


def test_words_do_not_depend_on_order_case_or_punctuation():
    assert words_of("Red  T-Shirt, 501!") == ["501", "red", "shirt", "t"]
    assert words_of("\u7ea2\u8272 A") == ["a", "\u7ea2", "\u8272"]
    assert title_key(words_of("a b")) == title_key(words_of("B, A"))
    assert title_key(words_of("ab")) != title_key(words_of("a b"))
    assert title_key(words_of("Levi 501")) != title_key(words_of("Levi 511"))


def stored(traces: pa.Table, folder) -> StoredTraces:
    path = folder / "traces.parquet"
    pq.write_table(traces, path)
    return StoredTraces((Storage.of(path),), traces.num_rows)


def random_traces(num_rows: int, seed: int = 0) -> pa.Table:
    """Random traces of which every tenth copies the row before it, some bits off."""
    rng = np.random.default_rng(seed)
    columns = {
        name: rng.integers(1, 2**63, num_rows).astype(np.uint64)
        for name in SCHEMA.names
        if SCHEMA.field(name).type == pa.uint64()
    }
    columns["catalog_hi"] = columns["catalog_lo"] = np.zeros(num_rows, np.uint64)
    columns["title_bits"] = np.full(num_rows, 7, np.uint64)
    columns["title_bits"][::7] = 1  # one word of three in common with the others
    colours = rng.integers(0, 256, (num_rows, 48)).astype(np.uint8)
    for row in range(10, num_rows, 10):
        flips = sum(1 << int(b) for b in rng.choice(64, int(rng.integers(0, 7)), replace=False))
        columns["perceptual"][row] = columns["perceptual"][row - 1] ^ np.uint64(flips)
        colours[row] = colours[row - 1]
    return (
        pa.table(
            {
                **columns,
                "row": np.arange(num_rows),
                "noise": pa.nulls(num_rows, pa.string()),
                "is_usable": np.ones(num_rows, bool),
                "title_words": np.full(num_rows, 9, np.int32),
                "colours": pa.array([bytes(c) for c in colours], pa.binary(48)),
                "catalog_id": pa.nulls(num_rows, pa.string()),
                "similarity": pa.nulls(num_rows, pa.float32()),
            }
        )
        .select(SCHEMA.names)
        .cast(SCHEMA)
    )


@pytest.mark.parametrize("bucket_rows", [1_000_000, 150])
def test_near_duplicates_are_those_of_all_pairs(bucket_rows, tmp_path):
    traces = random_traces(1000)
    config = DuplicateConfig(bucket_rows=bucket_rows, window=500, min_title_overlap=0.5)
    found = [find_edges(t) for t in edge_tasks(stored(traces, tmp_path), config)]
    edges = {tuple(sorted(pair)) for edges in found for pair in edges.pairs.tolist()}
    hashes = traces["perceptual"].to_numpy()
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    rows, others = np.nonzero(np.triu(distance <= 6, 1))
    colours = np.array([list(c.as_py()) for c in traces["colours"]], int)
    gaps = np.abs(colours[rows] - colours[others]).mean(1)
    alike = (gaps <= config.max_colour) & ((rows % 7 == 0) == (others % 7 == 0))
    wanted = {(int(a), int(b)) for a, b in zip(rows[alike], others[alike], strict=True)}
    assert edges == wanted
    assert len(wanted) >= 60


def test_a_row_is_compared_with_few_others_however_alike_all_are(tmp_path):
    traces = random_traces(2000)
    same = traces.set_column(
        traces.schema.get_field_index("perceptual"), "perceptual",
        pa.array(np.full(2000, 77, np.uint64)),
    )  # fmt: skip
    config = DuplicateConfig(window=8)
    task = edge_tasks(stored(same, tmp_path), config)[-1]
    found = find_edges(task)
    assert found.compared == sum(2000 - step for step in range(1, 9))
    assert found.cut_short > 1900


def test_a_group_blown_up_by_look_alikes_keeps_its_exact_ties():
    near = Edges(np.stack([np.arange(9), np.arange(1, 10)], axis=1))
    ties = Ties(12)
    ties.add("look_alike", near)
    ties.add("picture", Edges(np.array([[2, 3]])))
    ties.add("look_alike", near)
    ties.add("look_alike", Edges(np.array([[10, 11]])))
    groups = ties.groups(DuplicateConfig(max_group=5))
    assert groups.labels.tolist() == [0, 1, 2, 2, 4, 5, 6, 7, 8, 9, 10, 10]
    assert groups.counts["look_alikes_of_too_large_groups"] == 10
    assert groups.counts["tied_by_look_alike"] == 12
    assert groups.counts["tied_by_equal_picture"] == 2
    assert groups.counts["tied_by_long_title"] == 0
    assert groups.counts["groups"] == 2


def test_equal_titles_tie_only_if_long_and_if_the_pictures_agree(tmp_path):
    traces = random_traces(9)
    columns = {name: traces[name].to_numpy().copy() for name in ("title_hi", "perceptual")}
    columns["title_hi"][:] = 5
    # 0 and 1 agree though they are no look-alikes; 2 shows something else; 3 has a short title.
    columns["perceptual"][:4] = 0x0F0F, 0x0F0F ^ 0xFFF000000000, ~np.uint64(0x0F0F), 0x0F0F
    columns["title_hi"][4:] = np.arange(5) + 100
    for name, values in columns.items():
        traces = traces.set_column(traces.schema.get_field_index(name), name, pa.array(values))
    colours = [bytes(48)] * 9
    words = pa.array([12, 12, 12, 11, *[12] * 5], pa.int32())
    for name, column in (("colours", pa.array(colours, pa.binary(48))), ("title_words", words)):
        traces = traces.set_column(traces.schema.get_field_index(name), name, column)
    bits = pa.array(np.full(9, 7, np.uint64))
    traces = traces.set_column(traces.schema.get_field_index("title_bits"), "title_bits", bits)
    tasks = edge_tasks(stored(traces, tmp_path), DuplicateConfig())
    (task,) = [task for task in tasks if task.kind == "title"]
    assert find_edges(task).pairs.tolist() == [[0, 1]]


def run(noisy, output, **options):
    request = PairRequest(
        Storage.of(noisy.folder), Storage.of(output), PairConfig.model_validate(options)
    )
    return prepare_pairs(request, map_here)


@pytest.fixture(scope="module")
def prepared(noisy, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "pairs"
    return output, run(noisy, output, catalog_column="none", valid_share=0.2)


def test_noise_is_left_out_with_its_reason_and_nothing_is_lost(noisy, prepared):
    output, summary = prepared
    rejected = pl.read_parquet(output / "rejected.parquet")
    reasons = dict(rejected.select("product_id", "reason").iter_rows())
    assert reasons == noisy.planted
    kept = pl.read_parquet(output / "*" / "*.parquet")
    assert sorted([*kept["product_id"], *reasons]) == sorted(p.product_id for p in noisy.products)
    assert summary["rows_in"] == 120
    assert sum(summary["pairs"].values()) == kept.height
    assert summary["left_out"] == dict(Counter(noisy.planted.values()).most_common())
    report = json.loads((output / "report.json").read_text())
    assert report["pairs"] == summary["pairs"]
    assert "placeholder picture" in (output / "report.md").read_text()


def test_duplicates_share_a_catalog_and_a_split(noisy, prepared):
    output, _ = prepared
    ids, splits = {}, {}
    for split in ("train", "valid"):
        frame = pl.read_parquet(output / split / "*.parquet")
        ids |= dict(frame.select("product_id", "catalog_id").iter_rows())
        splits |= dict.fromkeys(frame["product_id"], split)
    one, other = noisy.products[102].product_id, noisy.products[103].product_id
    assert ids[one] is not None
    assert ids[one] == ids[other]
    for catalog in {i for i in ids.values() if i is not None}:
        members = [product for product, found in ids.items() if found == catalog]
        assert len({splits[m] for m in members}) == 1
    assert set(splits.values()) == {"train", "valid"}


def test_given_catalog_ids_stay_and_spread(noisy, tmp_path):
    frame = pl.read_parquet(noisy.folder / "products.parquet")
    places = pl.int_range(pl.len())
    frame = frame.with_columns(
        catalog_id=pl.when(places == 103).then(pl.lit("mine"))
        .when(places == 30).then(pl.lit("mine")).otherwise(None)
    )  # fmt: skip
    (tmp_path / "in" / "train").mkdir(parents=True)
    frame.write_parquet(tmp_path / "in" / "train" / "a.parquet", row_group_size=50)
    request = PairRequest(Storage.of(tmp_path / "in"), Storage.of(tmp_path / "out"))
    prepare_pairs(request, map_here)
    found = dict(
        pl.read_parquet(tmp_path / "out" / "train" / "*.parquet")
        .select("product_id", "catalog_id")
        .iter_rows()
    )
    mine = {product for product, catalog in found.items() if catalog == "mine"}
    assert mine >= {noisy.products[i].product_id for i in (30, 102, 103)}


def spread_rows(noisy, folder, *, row_group_size):
    """Given ids planted far apart (every third row lists one of ten products); output by split."""
    frame = pl.read_parquet(noisy.folder / "products.parquet").drop("catalog_id", strict=False)
    places = pl.int_range(pl.len())
    frame = frame.with_columns(
        catalog_id=pl.when(places % 3 == 0).then(pl.format("mine-{}", places % 10)),
        category=pl.col("category").cast(pl.Categorical),
    )
    (folder / "in").mkdir(parents=True)
    half = frame.height // 2
    frame[:half].write_parquet(folder / "in" / "a.parquet", row_group_size=row_group_size)
    frame[half:].with_columns(later=pl.lit(1)).write_parquet(folder / "in" / "b.parquet")
    config = PairConfig(file_bytes=60_000, valid_share=0.3)
    prepare_pairs(
        PairRequest(Storage.of(folder / "in"), Storage.of(folder / "out"), config), map_here
    )
    parts = {path: pl.read_parquet(path) for path in sorted(folder.glob("out/*/*.parquet"))}
    assert sorted(path.parent.name for path in parts).count("train") >= 3
    assert not (folder / "out" / "_work").exists()
    return frame, {
        split: pl.concat(part for path, part in parts.items() if path.parent.name == split)
        for split in ("train", "valid")
    }


@pytest.fixture(scope="module")
def spread(noisy, tmp_path_factory):
    return spread_rows(noisy, tmp_path_factory.mktemp("spread"), row_group_size=7)


def test_all_rows_come_out_as_they_went_in(noisy, spread):
    frame, splits = spread
    rows = pl.concat(splits.values())
    kept = frame.filter(~pl.col("product_id").is_in(list(noisy.planted)))
    assert rows.columns == [*(n for n in frame.columns if n != "catalog_id"), "later", "catalog_id"]
    same = frame.drop("catalog_id").columns
    assert (
        rows.select(same)
        .sort("product_id")
        .equals(
            kept.select(same).with_columns(pl.col("category").cast(pl.String)).sort("product_id")
        )
    )
    assert rows["later"].null_count() == kept["product_id"].is_in(frame["product_id"][:60]).sum()
    both = rows.join(kept.select("product_id", given="catalog_id"), on="product_id")
    given = both.filter(pl.col("given").is_not_null())
    assert given["given"].equals(given["catalog_id"])


def test_listings_of_one_product_lie_together_and_products_are_shuffled(spread):
    frame, splits = spread
    row_of = {product: row for row, product in enumerate(frame["product_id"])}
    for rows in splits.values():
        runs = rows["catalog_id"].fill_null(rows["product_id"]).rle_id()
        listings = rows.with_columns(run=runs).filter(pl.col("catalog_id").is_not_null())
        assert listings.group_by("catalog_id").agg(pl.col("run").n_unique())["run"].max() == 1
    order = [row_of[product] for product in splits["train"]["product_id"]]
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.3


def test_the_output_does_not_depend_on_row_groups(noisy, spread, tmp_path):
    _, splits = spread_rows(noisy, tmp_path, row_group_size=60)
    assert all(splits[name].equals(rows) for name, rows in spread[1].items())


def test_columns_of_different_kinds_under_one_name_are_refused(noisy, tmp_path):
    frame = pl.read_parquet(noisy.folder / "products.parquet")
    (tmp_path / "in").mkdir()
    frame.write_parquet(tmp_path / "in" / "a.parquet")
    frame.with_columns(category=1).write_parquet(tmp_path / "in" / "b.parquet")
    with pytest.raises(ValueError, match="do not fit"):
        prepare_pairs(
            PairRequest(Storage.of(tmp_path / "in"), Storage.of(tmp_path / "out")), map_here
        )


def test_an_input_without_pictures_is_refused(noisy, tmp_path):
    frame = pl.read_parquet(noisy.folder / "products.parquet").drop("image")
    (tmp_path / "in").mkdir()
    frame.write_parquet(tmp_path / "in" / "a.parquet")
    with pytest.raises(ValueError, match="has no pictures"):
        prepare_pairs(
            PairRequest(Storage.of(tmp_path / "in"), Storage.of(tmp_path / "out")), map_here
        )
    assert not (tmp_path / "out").exists()


def test_precision_and_recall_on_planted_copies(tmp_path):
    """Copies in the demo catalogue are cropped by 4-8% and encoded anew, under other titles."""
    config = DemoConfig(num_products=400, duplicates=0.3)
    rows = [
        {"product_id": p.product_id, "title": p.title, "image": p.picture, "catalog": p.catalog_id}
        for p in generate(config)
    ]
    settings = ScanSettings(PairConfig().columns, ("title",), PairConfig().noise)
    traces = stored(trace_rows(pa.Table.from_pylist(rows), settings), tmp_path)
    options = DuplicateConfig()
    ties = Ties(len(rows))
    for task in edge_tasks(traces, options):
        ties.add(task.kind, find_edges(task))
    labels = ties.groups(options).labels
    pairs = [(i, int(label)) for i, label in enumerate(labels) if i != label]
    right = [rows[i]["catalog"] == rows[j]["catalog"] for i, j in pairs]
    copies = []
    for index in range(len(rows)):
        root = catalog_root(config, index)
        is_copy = root != index and Dice(config.seed, "copy", index).chance(0.3)
        if is_copy and rows[index]["image"] and rows[root]["image"]:
            copies.append(labels[index] == labels[root])
    assert len(copies) >= 20
    assert np.mean(right) >= 0.95
    assert np.mean(copies) >= 0.5


def test_repeated_and_placeholder_rows():
    class Fixed(StoredTraces):
        def batches(self, columns):
            picture = np.array([1, 1, 1, 2, 1, 0, 0], np.uint64)
            title = np.array([5, 6, 5, 5, 7, 5, 5], np.uint64)
            table = {
                "row": np.arange(7),
                "picture_hi": picture,
                "picture_lo": picture,
                "title_hi": title,
                "title_lo": title,
                "is_usable": np.array([1, 1, 1, 1, 1, 0, 0], bool),
            }
            yield {name: table[name] for name in columns}

    traces = Fixed((), 7)
    assert np.flatnonzero(repeated_rows(traces)).tolist() == [2]
    assert np.flatnonzero(placeholder_rows(traces, 3)).tolist() == [0, 1, 2, 4]
    assert not placeholder_rows(traces, 4).any()


def test_products_held_out_are_left_out_with_a_reason(noisy):
    table = pq.read_table(noisy.folder / "products.parquet").slice(0, 8)
    held = noisy.products[6].product_id
    config = PairConfig()
    settings = ScanSettings(
        config.columns, config.sources, config.noise, held_out=frozenset({held})
    )
    traces = trace_rows(table, settings)
    assert traces["noise"].to_pylist()[6] == "held_out"
    assert traces["is_usable"].to_pylist()[6:] == [False, True]
