from __future__ import annotations

import os

import fsspec
import pytest

from pipelines.lake.pictures import PictureAddressConfig
from pipelines.lake.storage import Storage
from pipelines.prepare.pictures import PictureFolder, check_picture
from ulsdram_core.errors import PictureError
from ulsdram_core.reasons import Reason


@pytest.fixture
def folder(tmp_path, jpeg):
    root = tmp_path / "pictures"
    (root / "a").mkdir(parents=True)
    (root / "a" / "1.jpg").write_bytes(jpeg)
    (root / "broken.jpg").write_bytes(jpeg[:150])
    (root / "text.jpg").write_bytes(b"hello")
    (root / "empty.jpg").write_bytes(b"")
    (tmp_path / "secret.jpg").write_bytes(jpeg)
    (tmp_path / "pictures-of-others").mkdir()
    (tmp_path / "pictures-of-others" / "1.jpg").write_bytes(jpeg)
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "linked").symlink_to(tmp_path / "pictures-of-others")
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    os.mkfifo(root / "pipe.jpg")
    return PictureFolder(Storage.of(root), PictureAddressConfig().build())


@pytest.mark.parametrize("name", ["a/1.jpg", "./a//1.jpg", "a\\1.jpg"])
def test_reads_below_the_folder(folder, name, jpeg):
    assert folder.read(name) == jpeg


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.jpg", Reason.REFUSED_ADDRESS),
        ("a/../../secret.jpg", Reason.REFUSED_ADDRESS),
        ("..\\secret.jpg", Reason.REFUSED_ADDRESS),
        ("/etc/passwd", Reason.REFUSED_ADDRESS),
        ("~/secret.jpg", Reason.REFUSED_ADDRESS),
        ("file:///etc/passwd", Reason.REFUSED_ADDRESS),
        ("http://localhost/1.jpg", Reason.REFUSED_ADDRESS),
        ("C:\\1.jpg", Reason.REFUSED_ADDRESS),
        ("link.jpg", Reason.REFUSED_ADDRESS),
        ("linked/1.jpg", Reason.REFUSED_ADDRESS),
        ("loop.jpg", Reason.UNREACHABLE_PICTURE),
        ("pipe.jpg", Reason.UNREACHABLE_PICTURE),
        ("a", Reason.UNREACHABLE_PICTURE),
        (".", Reason.REFUSED_ADDRESS),
        ("absent.jpg", Reason.UNREACHABLE_PICTURE),
        ("a\0.jpg", Reason.REFUSED_ADDRESS),
        ("x" * 5000, Reason.UNREACHABLE_PICTURE),
        ("\ud800.jpg", Reason.REFUSED_ADDRESS),
        ("", Reason.NO_PICTURE),
        ("empty.jpg", Reason.NO_PICTURE),
        ("text.jpg", Reason.UNDECODABLE_PICTURE),
        ("broken.jpg", Reason.UNDECODABLE_PICTURE),
    ],
)
def test_refuses_with_a_reason(folder, name, reason):
    with pytest.raises(PictureError) as refusal:
        folder.read(name)
    assert refusal.value.reason == reason


def test_large_files_are_not_read(folder, jpeg):
    reader = PictureAddressConfig().build(max_bytes=len(jpeg) - 1)
    small = PictureFolder(folder.root, reader)
    with pytest.raises(PictureError) as refusal:
        small.read("a/1.jpg")
    assert refusal.value.reason == Reason.PICTURE_TOO_LARGE


def test_remote_folders_keep_the_same_rules(jpeg):
    fsspec.filesystem("memory").pipe_file("/pictures/a/1.jpg", jpeg)
    folder = PictureFolder(Storage.of("memory://pictures"), PictureAddressConfig().build())
    assert folder.read("a/1.jpg") == jpeg
    for name in ("../pictures/a/1.jpg", "absent.jpg", "memory://pictures/a/1.jpg"):
        with pytest.raises(PictureError):
            folder.read(name)


def test_bytes_are_checked(jpeg):
    assert check_picture(jpeg) is jpeg
    with pytest.raises(PictureError):
        check_picture(jpeg[:100])
