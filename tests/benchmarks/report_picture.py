"""Draw README's picture of the report: the page that `make demo` wrote, in a headless browser.

    python tests/benchmarks/report_picture.py [--page demo-out/report.html] [--out PNG]

Shows the top of the page and, below it, the first product cards with one word's heatmap. Needs
Chromium (on PATH or named by ULSDRAM_CHROMIUM).
"""

import argparse
import io
import os
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).resolve().parent
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
WIDTH = 1100


def browser_path() -> str:
    """Where Chromium is."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("ULSDRAM_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise SystemExit("found no Chromium; install it or set ULSDRAM_CHROMIUM")
    return found


def draw(page: Page, address: str) -> Image.Image:
    """Return the page's top and its first cards, one above the other."""
    page.goto(address)
    top = shot(page, height=620)
    card = page.locator(".card").first
    card.scroll_into_view_if_needed()
    words = card.locator(".words button")
    if words.count():
        words.first.click()
    page.evaluate("document.querySelector('.card').scrollIntoView()")
    page.wait_for_timeout(500)
    cards = shot(page, height=560)
    whole = Image.new("RGB", (WIDTH, top.height + cards.height), "white")
    whole.paste(top, (0, 0))
    whole.paste(cards, (0, top.height))
    return whole


def shot(page: Page, *, height: int) -> Image.Image:
    """What the window shows now, down to `height`."""
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height}
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


def main() -> None:
    """Draw and save, with few colours: the file is part of the repository."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=Path("demo-out/report.html"))
    parser.add_argument("--out", type=Path, default=FOLDER / "report.png")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": 800})
        picture = draw(page, arguments.page.resolve().as_uri())
        browser.close()
    picture.quantize(128).save(arguments.out, optimize=True)
    print(arguments.out)


if __name__ == "__main__":
    main()
