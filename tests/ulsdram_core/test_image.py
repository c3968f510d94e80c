"""Every format arrives as the same pixels; no bytes whatever raise anything but PictureError."""

import io
import json
import pickle
import struct
import subprocess
import sys
import textwrap
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ulsdram_core.errors import PictureError
from ulsdram_core.image import ImageConfig, decode_picture, picture_digest
from ulsdram_core.reasons import Reason

SMALL = ImageConfig(size=32)


def gradient(width=120, height=90):
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, 0 * rows + 90], -1)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(picture, format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, *chunks):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def reason_of(data, config=SMALL):
    with pytest.raises(PictureError) as caught:
        decode_picture(data, config)
    return caught.value.reason


@pytest.mark.parametrize(
    ("mode", "format", "options"),
    [
        ("RGB", "JPEG", {"quality": 95}),
        ("RGB", "JPEG", {"quality": 95, "progressive": True}),
        ("CMYK", "JPEG", {"quality": 95}),
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {}),
        ("RGB", "WEBP", {"quality": 95}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("RGB", "GIF", {}),
        ("RGB", "BMP", {}),
        ("RGBA", "BMP", {}),
    ],
)
def test_every_format_gives_the_same_pixels(mode, format, options):
    source = gradient()
    pixels = decode_picture(encoded(source.convert(mode), format, **options), SMALL)
    expected = np.asarray(source.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    coarse = mode == "P" or format == "GIF"  # 256 colours
    assert np.abs(pixels - expected).mean() < (12 if coarse else 4)


def test_sixteen_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = decode_picture(encoded(Image.fromarray(ramp), "PNG"), SMALL)
    assert pixels[0].mean() < 10
    assert 110 < pixels.mean() < 145
    assert pixels[-1].mean() > 245


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_pictures(mode):
    data = encoded(Image.new("L", (40, 20), 255).convert(mode), "PNG")
    assert (decode_picture(data, SMALL) == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_transparent_pixels_turn_white(mode, format):
    data = encoded(Image.new("RGBA", (40, 40), (0, 0, 0, 0)).convert(mode), format)
    assert (decode_picture(data, SMALL) == 255).all()


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_transparent_palette_entry_turns_white(format):
    picture = Image.new("P", (40, 40), 1)
    picture.putpalette([0, 0, 0, 0, 0, 0])
    assert (decode_picture(encoded(picture, format, transparency=1), SMALL) == 255).all()


def test_transparent_colour_key_turns_white():
    data = encoded(Image.new("RGB", (40, 40), (9, 9, 9)), "PNG", transparency=(9, 9, 9))
    assert (decode_picture(data, SMALL) == 255).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, format):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = gradient()
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decode_picture(encoded(stored, format, exif=exif), SMALL).astype(int)
    assert np.abs(turned - decode_picture(encoded(upright, "PNG"), SMALL)).mean() < 4


def test_junk_exif_does_not_cost_the_picture():
    data = encoded(gradient(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fjunk" * 5)
    assert decode_picture(data, SMALL).std() > 30


def test_junk_colour_profile_does_not_cost_the_picture():
    data = encoded(gradient(), "JPEG", icc_profile=b"junk" * 100)
    assert decode_picture(data, SMALL).std() > 30


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(format):
    red, blue = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(red, format, save_all=True, append_images=[blue] * 3, **options)
    assert (decode_picture(data, SMALL) == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3000, 2)])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_extreme_shapes(size, format):
    pixels = decode_picture(encoded(Image.new("RGB", size, (200, 100, 50)), format), SMALL)
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 6


def test_scaled_jpeg_decoding_stays_close_to_full_decoding():
    source = gradient(1600, 1200)
    config = ImageConfig(size=224)
    full = np.asarray(source.resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(decode_picture(encoded(source, "JPEG", quality=95), config) - full).mean() < 2


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_bytes_type(wrap):
    data = encoded(gradient(), "PNG")
    assert (decode_picture(wrap(data), SMALL) == decode_picture(data, SMALL)).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, Reason.NO_PICTURE),
        (float("nan"), Reason.NO_PICTURE),
        (b"", Reason.NO_PICTURE),
        ("aGVsbG8=", Reason.WRONG_TYPE),
        (7, Reason.WRONG_TYPE),
        (np.zeros(4, np.uint8), Reason.WRONG_TYPE),
        (b"\0" * 1000, Reason.UNDECODABLE_PICTURE),
        (b"plain text", Reason.UNDECODABLE_PICTURE),
        (b"<html><body>404 Not Found</body></html>", Reason.UNDECODABLE_PICTURE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.UNDECODABLE_PICTURE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Reason.UNDECODABLE_PICTURE),
        (encoded(Image.new("RGB", (9, 9)), "TIFF"), Reason.UNDECODABLE_PICTURE),
        (encoded(Image.new("RGB", (9, 9)), "PPM"), Reason.UNDECODABLE_PICTURE),
        (b"\xff\xd8\xff", Reason.UNDECODABLE_PICTURE),
    ],
)
def test_what_is_no_picture(data, reason):
    assert reason_of(data) == reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_truncated_pictures_are_refused_not_half_read(format):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format)
    assert reason_of(data[: len(data) // 2]) == Reason.UNDECODABLE_PICTURE


def test_limits_on_bytes_and_pixels():
    data = encoded(gradient(100, 100), "PNG")
    assert reason_of(data, ImageConfig(max_bytes=len(data) - 1)) == Reason.PICTURE_TOO_LARGE
    assert reason_of(data, ImageConfig(max_pixels=9_999)) == Reason.PICTURE_TOO_LARGE
    assert decode_picture(data, ImageConfig(max_bytes=len(data), max_pixels=10_000)).any()


@pytest.mark.parametrize("change", [{"size": 0}, {"max_pixels": 10**9}, {"mean": 1}])
def test_nonsense_config_is_refused(change):
    with pytest.raises(ValidationError):
        ImageConfig(**change)


def test_warnings_as_errors_keep_the_reason():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason_of(png(10_000, 10_000)) == Reason.PICTURE_TOO_LARGE


def test_picture_error_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(PictureError("found x", reason=Reason.NO_PICTURE)))
    assert (str(error), error.reason) == ("found x", Reason.NO_PICTURE)


def test_digest_tells_pictures_apart():
    data = encoded(gradient(), "PNG")
    assert picture_digest(data) == picture_digest(bytearray(data))
    assert picture_digest(data) != picture_digest(data + b"\0")


def seed_pictures():
    rng = np.random.default_rng(5)
    noise = Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    smooth = gradient()
    frames = {"save_all": True, "append_images": [noise.resize(smooth.size)] * 2}
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encoded(noise, "JPEG"),
        encoded(smooth, "JPEG", progressive=True, exif=exif),
        encoded(smooth.convert("CMYK"), "JPEG"),
        encoded(noise.convert("RGBA"), "PNG", exif=exif),
        encoded(smooth.convert("P"), "PNG", transparency=3),
        encoded(smooth, "WEBP", exif=exif),
        encoded(noise, "WEBP", lossless=True),
        encoded(smooth, "GIF", **frames),
        encoded(smooth, "WEBP", **frames),
        encoded(noise, "BMP"),
    ]


def corrupt(data, rng):
    kind = rng.integers(5)
    spoiled = bytearray(data)
    if kind == 0:  # cut off
        return bytes(spoiled[: rng.integers(len(spoiled))])
    if kind == 1:  # flipped bits
        for position in rng.integers(0, len(spoiled), rng.integers(1, 20)):
            spoiled[position] ^= 1 << int(rng.integers(8))
    elif kind == 2:  # a spoiled header
        for position in rng.integers(0, min(64, len(spoiled)), 4):
            spoiled[position] = int(rng.integers(256))
    elif kind == 3:  # a piece lost or doubled
        start, end = sorted(int(i) for i in rng.integers(0, len(spoiled), 2))
        spoiled[start:end] = spoiled[start:end] * int(rng.integers(0, 3))
    else:  # bytes of something else
        start = int(rng.integers(len(spoiled)))
        spoiled[start : start + 200] = rng.bytes(200)
    return bytes(spoiled)


def test_a_thousand_corrupted_pictures():
    rng = np.random.default_rng(7)
    seeds = seed_pictures()
    reasons, slowest = [], 0.0
    for index in range(1000):
        data = corrupt(seeds[index % len(seeds)], rng)
        start = time.perf_counter()
        try:
            assert decode_picture(data, SMALL).shape == (32, 32, 3)
        except PictureError as error:
            reasons.append(error.reason)
        slowest = max(slowest, time.perf_counter() - start)
    assert 300 < len(reasons) < 1000
    assert set(reasons) <= set(Reason)
    assert slowest < 10


def header_bomb(kind):
    jpeg = encoded(Image.new("RGB", (8, 8)), "JPEG")
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0" * 200))
    bombs = {
        "declared 50k x 50k": lambda: png(50_000, 50_000, pixels),
        "20k x 20k": lambda: png(20_000, 20_000, pixels),
        "13k x 13k": lambda: png(13_000, 13_000, pixels),
        "one pixel wide": lambda: png(1, 40_000_000, pixels),
        "png chunks": lambda: png(8, 8, png_chunk(b"prVt", b"") * 1_000_000, pixels),
        "text": lambda: png(
            8, 8, png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 10**8)), pixels
        ),
        "many texts": lambda: png(
            8, 8, png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 900_000)) * 500, pixels
        ),
        "profile": lambda: png(
            8, 8, png_chunk(b"iCCP", b"k\0\0" + zlib.compress(b"a" * 10**8)), pixels
        ),
        "jpeg segments": lambda: jpeg[:2] + b"\xff\xe5\0\2" * 4_000_000 + jpeg[2:],
        "jpeg fill bytes": lambda: jpeg[:2] + b"\xff" * 15_000_000 + jpeg[2:],
        "canvas of webp": lambda: (
            b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xc7\x32\0" * 2 + b"\0" * 70
        ),
        "canvas of gif": lambda: (
            b"GIF89a\xc8\x32\xc8\x32\x80\0\0" + b"\0" * 6 + b"!\xf9\4\x08\0\0\0\0"
            b",\0\0\0\0\xc8\x32\xc8\x32\0\2\2\x44\1\0;"
        ),
        "run-length bmp": lambda: (
            b"BM" + struct.pack("<IHHI", 10**7, 0, 0, 1078)
            + struct.pack("<IiiHHIIiiII", 40, 7000, 7000, 1, 8, 1, 0, 0, 0, 256, 0)
            + b"\0" * 1024 + b"\1\1" * 5_000_000
        ),
    }  # fmt: skip
    return bombs[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        "declared 50k x 50k", "20k x 20k", "13k x 13k", "one pixel wide", "png chunks", "text",
        "many texts", "profile", "jpeg segments", "jpeg fill bytes", "canvas of webp",
        "canvas of gif", "run-length bmp",
    ],
)  # fmt: skip
def test_bombs_are_refused_quickly(kind):
    data = header_bomb(kind)
    start = time.perf_counter()
    assert reason_of(data) in (Reason.PICTURE_TOO_LARGE, Reason.UNDECODABLE_PICTURE)
    assert time.perf_counter() - start < 5


def test_repeated_scans_are_refused_but_not_bytes_after_the_picture():
    jpeg = encoded(Image.new("RGB", (6000, 6000)), "JPEG", progressive=True)
    last_scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    assert reason_of(jpeg[:-2] + last_scan * 400 + jpeg[-2:]) == Reason.PICTURE_TOO_LARGE
    assert decode_picture(jpeg + b"\xff\xda" * 400, SMALL).shape == (32, 32, 3)


def test_ten_thousand_frames_cost_one():
    frames = [Image.new("RGB", (8, 8), (i % 256, i // 256, 0)) for i in range(10_000)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    start = time.perf_counter()
    decode_picture(data, SMALL)
    assert time.perf_counter() - start < 1


def test_memory_is_bounded_by_the_pixel_limit():
    """A child decodes the heaviest pictures that pass the limits and reports its peak."""
    code = """
        import io, json, resource, sys
        from PIL import Image
        from ulsdram_core.errors import PictureError
        from ulsdram_core.image import ImageConfig, decode_picture
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for data in map(bytes.fromhex, sys.stdin.read().split()):
            try:
                decode_picture(data, ImageConfig())
            except PictureError:
                pass
        print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024))
    """
    heavy = [
        encoded(Image.new("RGBA", (5000, 5000)), "PNG", compress_level=1),
        encoded(Image.new("RGB", (5000, 5000)), "JPEG", progressive=True),
        header_bomb("20k x 20k"),
        header_bomb("canvas of gif"),
        header_bomb("text"),
    ]
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        input=" ".join(data.hex() for data in heavy),
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    # 25 Mpx at 4 bytes, twice (pixels and premultiplied copy), and slack for the decoder.
    assert json.loads(child.stdout) < 400
