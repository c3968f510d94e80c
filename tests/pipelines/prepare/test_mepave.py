from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from mepave_tags import join_tags

from pipelines.prepare.mepave import (
    MepaveProblem,
    parse_mepave_line,
    read_mepave,
    split_tags,
)
from pipelines.prepare.rows import Problem, RowError
from pipelines.prepare.shards import find_raw_files
from ulsdram_core.schema import GoldSpan

LINE = "c_1\ts_2\t牛皮革面料\t<材质>牛皮革</材质>面料"


@pytest.fixture
def read(tmp_path, make_config, whole_file):
    def read_lines(lines: list[str | bytes], **settings) -> list:
        path = tmp_path / "jdai.jave.fashion.train"
        encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
        path.write_bytes(b"\n".join(encoded))
        return list(read_mepave(whole_file(path), make_config("mepave", tmp_path, **settings)))

    return read_lines


def test_a_line_becomes_a_product(read):
    [product] = read([LINE])
    assert product.product_id == "c_1/s_2"
    assert product.texts == {"title": "牛皮革面料"}
    assert product.gold == [GoldSpan("材质", "牛皮革", 0, 3)]
    assert product.num_pictures == 0


@pytest.mark.parametrize("line", ["\ufeff" + LINE, LINE + "\r"])
def test_marks_of_other_systems_do_not_matter(read, line):
    [product] = read([line])
    assert (product.product_id, product.texts["title"]) == ("c_1/s_2", "牛皮革面料")


def test_malformed_lines_are_told_and_blank_ones_skipped(read):
    lines = [
        LINE,
        "",
        "c_1\ts_2\tonly three",
        "c_1\ts_2\t面料\t<材质>牛</材质>面料",
        "c_1\ts_2\t面料\t<材质>面料",
        b"c_1\ts_2\t\xff\t\xff",
        "c_1\ts_2\t \t ",
        "x" * 300,
    ]
    product, blank, *problems = read(lines, max_line_bytes=200)
    assert (product.line, blank) == (1, None)
    assert [(problem.line, problem.reason) for problem in problems] == [
        (3, "wrong_columns"),
        (4, "sentence_differs"),
        (5, "unbalanced_tags"),
        (6, "invalid_text"),
        (7, "empty_text"),
        (8, "line_too_long"),
    ]
    assert all(isinstance(problem, Problem) and problem.num_rows == 1 for problem in problems)


def test_pictures_are_found_by_the_digits(read, tmp_path, jpeg):
    folder = tmp_path / "product_images"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(jpeg)
    one, other = read([LINE, LINE.replace("c_1", "c_9")], images=str(folder))
    assert one.pictures == [jpeg]
    assert (other.pictures, other.broken_pictures) == ([], ["unreachable_picture"])


@pytest.mark.parametrize("name", ["1.JPG", "1.jpeg", "1.png"])
def test_pictures_are_found_under_other_endings(read, tmp_path, jpeg, name):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / name).write_bytes(jpeg)
    [product] = read([LINE], images=str(tmp_path / "p"))
    assert product.pictures == [jpeg]


def test_lines_in_a_lake_are_read(make_config, s3_bucket):
    fs, uri, options = s3_bucket
    fs.pipe(f"{uri}/jdai.jave.fashion.train", f"{LINE}\n{LINE}".encode())
    config = make_config("mepave", uri, storage_options=options)
    [shard] = find_raw_files(config).shards
    assert len(list(read_mepave(shard, config))) == 2


DATA = Path(__file__).parents[2].parent / "shared" / "data" / "mepave"
INLINE = [
    "c_154528850\ts_56346\tHC圆领拼接连衣裙\tHC<领型>圆领</领型><风格>拼接</风格>连衣裙\n",
    "c_176385144\ts_889\t衬托的肌肤更加的白皙\t衬托的肌肤更加的白皙\n",
    "c_213128596\ts_8029\t以纯短袖T恤撞色英文印花\t以纯<袖长>短袖</袖长>T恤<图案>撞色</图案>英文<图案>印花</图案>",
]


def lines():
    found = [
        line
        for file in sorted(DATA.glob("jdai.jave.fashion.*"))
        for line in file.read_text(encoding="utf-8").split("\n")
        if line
    ]
    return found or INLINE


def test_spans_join_back_into_every_tagged_sentence():
    for line in lines():
        read = parse_mepave_line(line)
        tagged = line.rstrip("\n").split("\t")[3]
        assert join_tags(read.sentence, read.gold) == tagged
        assert all(read.sentence[span.start : span.end] == span.value for span in read.gold)


def test_one_line():
    read = parse_mepave_line(INLINE[0])
    assert (read.cid, read.sid) == ("c_154528850", "s_56346")
    assert [(s.attribute, s.value, s.start, s.end) for s in read.gold] == [
        ("领型", "圆领", 2, 4),
        ("风格", "拼接", 4, 6),
    ]
    assert read.picture == "product_images/154528850.jpg"


@pytest.mark.parametrize(
    "tagged",
    ["", "<a>x</a>", "<a>x<b>y</b></a><a>z</a>", "<a><b>x</b></a>", "1 < 2 <a>x</a> <3 </ >", "<>"],
)
def test_nested_tags_and_stray_brackets_join_back(tagged):
    assert join_tags(*split_tags(tagged)) == tagged


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", MepaveProblem.WRONG_COLUMNS),
        ("c_1\ts_1\tx", MepaveProblem.WRONG_COLUMNS),
        ("c_1\ts_1\tx\tx\tx", MepaveProblem.WRONG_COLUMNS),
        ("c_\ts_1\tx\tx", MepaveProblem.NO_PICTURE_NUMBER),
        ("c_1\ts_1\tx\t<a>x", MepaveProblem.UNBALANCED_TAGS),
        ("c_1\ts_1\tx\tx</a>", MepaveProblem.UNBALANCED_TAGS),
        ("c_1\ts_1\txy\t<a>x</b>y", MepaveProblem.UNBALANCED_TAGS),
        ("c_1\ts_1\tx\t<a></a>x", MepaveProblem.EMPTY_VALUE),
        ("c_1\ts_1\txy\t<a>x</a>", MepaveProblem.SENTENCE_DIFFERS),
    ],
)
def test_malformed_lines_name_their_problem(line, problem):
    with pytest.raises(RowError) as caught:
        parse_mepave_line(line)
    assert pickle.loads(pickle.dumps(caught.value)).reason == problem
    assert isinstance(caught.value, ValueError)
