import pickle
from pathlib import Path

import pytest

from ulsdram_core.mepave import (
    MepaveError,
    MepaveProblem,
    join_tags,
    parse_mepave_line,
    split_tags,
)

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
    with pytest.raises(MepaveError) as caught:
        parse_mepave_line(line)
    assert pickle.loads(pickle.dumps(caught.value)).problem is problem
    assert isinstance(caught.value, ValueError)
