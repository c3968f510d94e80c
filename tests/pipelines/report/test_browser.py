"""The pages in a real browser: quiet, sealed, filtered, reachable by keyboard, fast enough."""

import base64
import re

import numpy as np
import pytest

from pipelines.analysis import table
from pipelines.compare.differences import Answers, compare
from pipelines.compare.output import comparison_page, sample_cards
from pipelines.lake.products import ProductReader
from pipelines.lake.storage import Storage
from pipelines.report.build import ReportRequest, build_report
from pipelines.report.cards import filtered_cards
from pipelines.report.explain import explain, explanation_page
from pipelines.report.model_view import ModelView
from pipelines.report.page import Section, render_page

pytestmark = pytest.mark.browser

LOOKS = ((1280, "light"), (400, "dark"))
PAGES = ("report", "two", "explain", "compare")
NUM_MANY = 2000


@pytest.fixture(scope="module")
def pages(shop, tmp_path_factory):
    """Every kind of page that we write."""
    folder = tmp_path_factory.mktemp("pages")
    opened, reader = table(shop.table), ProductReader(Storage.of(shop.catalogue))
    dram, vl = (ModelView.load(Storage.of(shop.model(name))) for name in ("dram", "vl"))
    product = next(p for p in shop.products if p.picture).to_product()
    sides = [Answers(night, table(shop.table, at=night).extractions())
             for night in ("night-1", "night-2")]  # fmt: skip
    comparison = compare(*sides, gold=reader.gold())
    contents = {
        "report": build_report(ReportRequest(opened, reader, dram)).html,
        "two": build_report(ReportRequest(opened, reader, dram, vl)).html,
        "explain": explanation_page([explain(dram, product), explain(vl, product)]),
        "compare": comparison_page(comparison, [], sample_cards(comparison, tuple(sides), reader)),
    }
    for name, html in contents.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return folder


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_quiet_sealed_and_within_the_width(pages, visit, name, width, scheme):
    visited = visit(
        pages / f"{name}.html", viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    page = visited.page
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    for button in page.locator(".words button").all()[:3]:
        button.click()
    assert visited.complaints == []
    assert visited.external() == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
    assert (brightness > 128) == (scheme == "light")


def test_script_in_a_title_is_text(pages, visit):
    visited = visit(pages / "report.html")
    page = visited.page
    card = page.locator(".card", has_text="<script>")
    assert card.count() == 1
    assert card.locator("script, img[onerror]").count() == 0
    assert "</script> & " in card.locator(".text").first.text_content()
    assert card.locator("mark").evaluate_all("nodes => nodes.map(n => n.firstChild.data)") == [
        "red"
    ]
    assert page.title() == "Extraction report"
    assert visited.complaints == []


def test_injected_code_and_styles_are_refused(pages, visit):
    visited = visit(pages / "report.html")
    visited.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.broken = true";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", '<img src="https://example.com/x.png">');
        }"""
    )
    assert visited.page.evaluate("window.broken") is None
    assert len([text for text in visited.complaints if "Content Security Policy" in text]) >= 2


def settle(page) -> None:
    """Wait until the filters have been applied."""
    page.wait_for_selector("#cards[aria-busy=false]", state="attached")


def wait_for_cards(page, *, more_than: int) -> None:
    """Wait until more cards are drawn; the page's policy forbids to wait for an expression."""
    page.locator(".card").nth(more_than).wait_for(state="attached")


def found(page) -> int:
    """How many products the filters leave, as told to a screen reader."""
    settle(page)
    return int(page.locator("#found").inner_text().split()[0].replace(",", ""))


def test_filters_agree_with_the_rows(pages, visit, shop):
    page = visit(pages / "report.html").page
    rows = [row for row in shop.rows["night-2"] if row["status"] != "vanished"]
    assert found(page) == len(rows)

    page.get_by_role("combobox", name="Attribute").select_option("extra")
    expected = [r for r in rows if any(v["attribute"] == "extra" for v in r["values"])]
    assert found(page) == len(expected)
    page.get_by_label("Confidence from, in percent").fill("90")
    expected = [
        r for r in rows
        if any(v["attribute"] == "extra" and v["confidence"] >= 0.9 for v in r["values"])
    ]  # fmt: skip
    assert found(page) == len(expected)

    page.get_by_role("button", name="Reset").click()
    page.get_by_role("combobox", name="Status").select_option("degraded")
    assert found(page) == sum(row["status"] == "degraded" for row in rows)
    page.get_by_role("combobox", name="Status").select_option("")

    title = shop.products[8].title
    page.get_by_label("Search").fill(title.upper())
    assert found(page) == sum(p.title.lower() == title.lower() for p in shop.products)
    page.get_by_label("Search").fill("nothing has this text")
    assert found(page) == 0
    assert page.locator("#cards").text_content() == ""
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("combobox", name="Show").select_option("empty")
    assert found(page) == sum(not row["values"] for row in rows)


def test_order_by_doubt_and_by_id(pages, visit):
    page = visit(pages / "report.html").page
    page.get_by_role("combobox", name="Order").select_option("id")
    settle(page)
    ids = page.locator(".card h3").all_text_contents()
    assert ids == sorted(ids)
    page.get_by_role("combobox", name="Order").select_option("unsure")
    settle(page)
    first = page.locator(".card").first.locator(".values .score").all_text_contents()
    assert any("30%" in text for text in first)


def test_enter_in_the_search_field_sends_nothing(pages, visit):
    visited = visit(pages / "report.html")
    visited.page.get_by_label("Search").press("Enter")
    visited.page.wait_for_timeout(200)
    assert visited.complaints == []
    assert len(visited.requests) == len([u for u in visited.requests if u.startswith(("f", "d"))])


def test_a_word_shows_its_heatmap_on_both_sides(pages, visit):
    page = visit(pages / "two.html").page
    card = page.locator(".card", has=page.locator(".words")).first
    first, second = (card.locator(".words button").nth(i) for i in (0, 1))
    canvases = card.locator("canvas")
    assert first.get_attribute("aria-pressed") == "true"
    assert canvases.count() == 2
    before = [c.evaluate("c => c.toDataURL()") for c in canvases.all()]
    second.click()
    assert [b.get_attribute("aria-pressed") for b in (first, second)] == ["false", "true"]
    after = [c.evaluate("c => c.toDataURL()") for c in canvases.all()]
    assert before[0] != after[0]
    assert "ULS-DRAM" in canvases.first.get_attribute("aria-label")
    second.click()
    assert all(c.is_hidden() for c in canvases.all())


def test_keyboard_reaches_everything_and_focus_shows(pages, visit):
    page = visit(pages / "report.html").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.get_by_label("Search").focus()
    names = []
    for _ in range(10):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.name || ''"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    assert [n for n in names if n] == [
        "attribute", "status", "from", "to", "kind", "order", "heatmaps",
    ]  # fmt: skip
    word = page.locator(".words button").first
    word.focus()
    page.keyboard.press("Space")
    assert word.get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("name", PAGES)
def test_everything_has_a_name(pages, visit, name):
    page = visit(pages / f"{name}.html").page
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, svg:not([aria-hidden]),"
             + "canvas:not([hidden]), section, form, nav, [role=region]")]
          .filter(n => !(n.labels && n.labels.length) && !n.getAttribute("aria-label")
                       && !n.getAttribute("aria-labelledby") && !n.textContent.trim())
          .map(n => n.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    assert page.locator("main").count() == page.locator("h1").count() == 1
    assert page.locator("img:not([alt])").count() == 0
    assert page.evaluate("document.documentElement.lang") == "en"


def many_cards(count: int) -> list[dict]:
    """Cards with pictures of a realistic size, 6 kB each."""
    noise = base64.b64encode(np.random.default_rng(0).bytes(4500)).decode()
    weights = base64.b64encode(bytes(range(49))).decode()
    cards = []
    for number in range(count):
        value = {
            "attribute": f"a{number % 7}", "value": "word", "normalized": None, "source": "title",
            "start": 0, "end": 4, "confidence": (number % 100) / 100, "correct": number % 3 > 0,
        }  # fmt: skip
        word = {"source": "title", "start": 0, "end": 4, "grid": [7, 7], "weights": [weights]}
        side = {
            "name": "ULS-DRAM", "model": "m", "status": "ok", "reason": None, "values": [value] * 6,
            "missed": [], "range": [["a0", 0.5]], "maps": [word] * 6,
        }  # fmt: skip
        cards.append(
            {
                "id": f"p{number:05d}", "category": "c", "sides": [side],
                "texts": [{"source": "title", "text": f"word {number}", "is_cut": False}],
                "pictures": [
                    {"uri": f"data:image/jpeg;base64,{noise}", "width": 192, "height": 192}
                ],
            }
        )  # fmt: skip
    return cards


def test_two_thousand_cards_are_drawn_as_they_are_needed(visit, tmp_path):
    content = filtered_cards(attributes=["a0", "a1"], statuses=["ok"], kinds=[("all", "all")],
                             heatmaps=True)  # fmt: skip
    html = render_page(
        title="Many", subtitle=[], sections=[Section("products", "Products", content)],
        data={"kind": "report", "attributes": [], "heatmaps": True, "cards": many_cards(NUM_MANY)},
    )  # fmt: skip
    file = tmp_path / "many.html"
    file.write_text(html, encoding="utf-8")
    visited = visit(file)
    page = visited.page
    assert found(page) == NUM_MANY
    drawn = page.locator(".card").count()
    assert 0 < drawn < 200
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    wait_for_cards(page, more_than=drawn)
    page.get_by_label("Search").fill("word 1999")
    assert found(page) == 1
    assert page.locator(".card h3").text_content() == "p01999"
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("combobox", name="Attribute").select_option("a1")
    assert found(page) == len(range(1, NUM_MANY, 7))
    more = page.get_by_role("button", name="Show more")
    shown = page.locator(".card").count()
    more.focus()
    page.keyboard.press("Enter")
    wait_for_cards(page, more_than=shown)
    assert page.evaluate("document.activeElement.className").startswith("card")
    assert [text for text in visited.complaints if "image" not in text.lower()] == []
