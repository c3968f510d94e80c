"""Digests: the same as ever, however they are computed."""

import hashlib

import pytest

from pipelines.lake.digests import digest, digests, digests_of_one


@pytest.mark.parametrize("part", [b"", b"a", b"x" * 63, b"x" * 64, b"y" * 1000])
def test_a_digest_covers_length_and_content(part):
    expected = hashlib.blake2b(len(part).to_bytes(8, "little") + part, digest_size=16).digest()
    assert digest((part,)) == digests_of_one([None, part])[1] == expected
    assert digests([part]) == [hashlib.blake2b(part, digest_size=16).digest()]


def test_borders_and_nulls_count():
    rows = [(b"ab", b"c"), (b"a", b"bc"), (None, b"abc"), (b"", b"abc"), (b"abc",), (b"abc", None)]
    assert len({digest(row) for row in rows}) == len(rows)
    assert digest((b"ab", None)).hex() == digest((b"ab", None)).hex()
