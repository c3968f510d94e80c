"""Pictures decoded per second on one core, against plain Pillow without scaled decoding.

Prints one line a case and a JSON object last: python tests/benchmarks/bench_decode.py
"""

import argparse
import io
import json
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from ulsdram_core.image import ImageConfig, decode_picture

CASES = [(500, 375, "JPEG"), (1000, 1000, "JPEG"), (1000, 1000, "WEBP"), (60, 80, "JPEG")]


def photo(width: int, height: int, format: str) -> bytes:
    """Return a picture with about as many bytes per pixel as a shop photograph."""
    rng = np.random.default_rng(0)
    blobs = rng.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC))
    noisy = smooth + rng.normal(0, 2, smooth.shape)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, format, quality=85)
    return buffer.getvalue()


def plain(data: bytes, size: int) -> np.ndarray:
    """Decode at full resolution, as a straightforward script would."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    return np.array(picture.resize((size, size), Image.Resampling.BILINEAR))


def rate(call: Callable[[], object], seconds: float) -> float:
    """Return calls per second, the best of three runs."""
    best = 0.0
    for _ in range(3):
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            call()
            count += 1
        best = max(best, count / (time.perf_counter() - start))
    return round(best, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each of three runs")
    parser.add_argument("--size", type=int, default=224, help="side of the decoded square")
    arguments = parser.parse_args()
    config, results = ImageConfig(size=arguments.size), {}
    for width, height, format in CASES:
        data = photo(width, height, format)
        case = f"{width}x{height} {format}"
        ours = rate(partial(decode_picture, data, config), arguments.seconds)
        full = rate(partial(plain, data, arguments.size), arguments.seconds)
        print(f"{case} ({len(data)} bytes): {ours}/s, plain Pillow {full}/s")
        results[case] = {"decode_picture": ours, "plain_pillow": full}
    print(json.dumps({"pictures_per_second": results, "size": arguments.size}))


if __name__ == "__main__":
    main()
