"""Nothing from the data becomes markup."""

import base64
import hashlib
import json
import re

import pytest

from pipelines.report.grid import grid
from pipelines.report.markup import Markup, joined, json_island, tag
from pipelines.report.page import Section, render_page


@pytest.mark.parametrize("text", ["<script>", 'a" onclick="x', "&amp;", "</td>", "it's"])
def test_text_is_escaped_everywhere(text):
    html = tag("p", text, [text, tag("b", text)], title=text)
    assert "<script" not in html
    assert html.count("<") == html.count(">") == 4
    assert '" onclick' not in html


def test_markup_stays_and_false_attributes_go():
    html = tag("input", type="checkbox", checked=True, hidden=False, aria_label=None, for_="x")
    assert html == '<input type="checkbox" checked for="x">'
    assert joined(Markup("<b>"), "<b>") == "<b>&lt;b&gt;"


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--", "]]>", "\u2028\u2029", "\\", "\u4e2d"]
)
def test_island_cannot_be_left_and_reads_back(text):
    island = json_island({"text": text, "list": [1.5, None]})
    assert not set("<>&\u2028\u2029") & set(island)
    assert json.loads(island) == {"text": text, "list": [1.5, None]}


def test_island_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="JSON"):
        json_island([float("nan")])


def test_columns_of_figures_align_and_cells_are_escaped():
    html = grid("Caption", ("Name", "Count", "Text"), [("<x>", 1, "a"), ("y", None, "5%x")])
    assert html.count('class="figure"') == 3
    assert "&lt;x&gt;" in html
    assert grid("Caption", ("Name",), []) == '<p class="muted">None.</p>'


def test_policy_lets_only_our_own_style_and_script_in():
    html = render_page(
        title="<t>",
        subtitle=["<s>"],
        sections=[Section("k", "<h>", Markup(""))],
        data={"cards": []},
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src &#x27;none&#x27;")
    assert "unsafe" not in policy
    for element in ("style", "script"):
        text = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text[0].encode()).digest()).decode()
        assert len(text) == 1
        assert f"{element}-src &#x27;sha256-{digest}&#x27;" in policy
    assert not re.search(r"<[tsh]>|https?://|style=|\son\w+=", html)
