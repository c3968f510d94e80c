from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from pipelines.prepare.shards import find_raw_files


@pytest.fixture
def folder(tmp_path):
    def make(*names: str, content: str = "{}\n"):
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".parquet"):
                pq.write_table(pa.table({"title": ["a", "b", "c"]}), path, row_group_size=2)
            else:
                path.write_text(content)
        return tmp_path / "in"

    return make


def found(inputs):
    return [(shard.file.name, shard.file.split, shard.start) for shard in inputs.shards]


def test_parquet_is_cut_into_row_groups(folder, make_config):
    inputs = find_raw_files(make_config("tagged", folder("train/a.parquet", "test.parquet")))
    assert found(inputs) == [
        ("test.parquet", "test", 0),
        ("test.parquet", "test", 1),
        ("train/a.parquet", "train", 0),
        ("train/a.parquet", "train", 1),
    ]
    assert inputs.given_splits() == {"train", "test"}


def test_lines_are_cut_into_byte_ranges(folder, make_config):
    source = folder("train.jsonl", content="{}\n" * 10)
    inputs = find_raw_files(make_config("tagged", source, chunk_bytes=16))
    assert [(shard.start, shard.end) for shard in inputs.shards] == [(0, 16), (16, 32)]


def test_other_and_hidden_files_are_ignored_and_counted(folder, make_config):
    source = folder("a.jsonl", "LICENSE", "_marker.jsonl", ".hidden/b.jsonl")
    inputs = find_raw_files(make_config("tagged", source))
    assert found(inputs) == [("a.jsonl", None, 0)]
    assert inputs.ignored.found == 3
    assert sorted(inputs.ignored.listed) == [".hidden/b.jsonl", "LICENSE", "_marker.jsonl"]


def test_one_file_will_do(folder, make_config):
    source = folder("a.jsonl") / "a.jsonl"
    assert found(find_raw_files(make_config("tagged", source))) == [("a.jsonl", None, 0)]


def test_unreadable_parquet_is_a_problem(folder, make_config):
    source = folder("a.parquet")
    (source / "b.parquet").write_bytes(b"broken")
    inputs = find_raw_files(make_config("tagged", source))
    [(name, problem)] = inputs.problems
    assert (name, problem.reason) == ("b.parquet", "unreadable_file")
    assert {shard.file.name for shard in inputs.shards} == {"a.parquet"}


@pytest.mark.parametrize("prefix", ["jdai", "jdair"])
@pytest.mark.parametrize("ending", ["", ".txt"])
def test_mepave_names(folder, make_config, prefix, ending):
    names = [f"{prefix}.jave.fashion.{split}{ending}" for split in ("test", "train", "valid")]
    inputs = find_raw_files(make_config("mepave", folder(*names, "README")))
    assert [shard.file.split for shard in inputs.shards] == ["test", "train", "valid"]
    assert inputs.ignored.listed == ["README"]


def test_one_mepave_file_a_split(folder, make_config):
    source = folder("jdai.jave.fashion.train", "jdai.jave.fashion.train.txt")
    with pytest.raises(ValueError, match="keep one"):
        find_raw_files(make_config("mepave", source))


def test_mae_folders_and_pictures(folder, make_config):
    source = folder("train/1.json", "val/1.json", "test/1.json", "mumie-img/x.json")
    inputs = find_raw_files(make_config("mae", source, images=str(source / "mumie-img")))
    assert [split for _, split, _ in found(inputs)] == ["test", "train", "valid"]


def test_files_outside_the_splits_are_a_mistake(folder, make_config):
    source = folder("train/a.jsonl", "b.jsonl")
    with pytest.raises(ValueError, match=r"b\.jsonl outside"):
        find_raw_files(make_config("tagged", source))
    inputs = find_raw_files(make_config("tagged", source, splits="made"))
    assert inputs.given_splits() == set()


@pytest.mark.parametrize("kind", ["mae", "mepave", "tagged"])
def test_nothing_to_read_is_a_mistake(folder, make_config, kind):
    for source in (folder("notes.md"), folder("notes.md") / "absent"):
        with pytest.raises(ValueError, match="found no"):
            find_raw_files(make_config(kind, source))


def test_a_delta_table_is_read_as_it_is_now(tmp_path, make_config):
    for colour in ("red", "blue"):
        rows = pa.table({"title": [f"{colour} hat"], "category": ["A"], "specs": ["{}"]})
        write_deltalake(
            tmp_path / "in" / "train", rows, mode="overwrite", partition_by=["category"]
        )
    inputs = find_raw_files(make_config("tagged", tmp_path / "in"))
    [shard] = inputs.shards
    assert shard.file.split == "train"
    assert shard.file.partitions == (("category", "A"),)
    assert pq.read_table(shard.file.path)["title"].to_pylist() == ["blue hat"]
    assert find_raw_files(make_config("tagged", tmp_path / "in" / "train")).shards[0].file.size > 0


@pytest.mark.parametrize("images", [".", "..", "../.."])
def test_a_picture_folder_around_the_input_hides_nothing(folder, make_config, images):
    source = folder("a.jsonl")
    around = (source / images).resolve()
    assert found(find_raw_files(make_config("tagged", source, images=str(around))))


def test_endings_in_capitals_count(folder, make_config):
    source = folder("a.parquet")
    (source / "a.parquet").rename(source / "A.PARQUET")
    inputs = find_raw_files(make_config("tagged", source))
    assert [shard.start for shard in inputs.shards] == [0, 1]
    assert inputs.schemas["A.PARQUET"].names == ["title"]
