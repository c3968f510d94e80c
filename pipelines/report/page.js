"use strict";

// Draws the product cards from the data island. Text from the data only ever becomes text nodes.

const DATA = JSON.parse(document.getElementById("data").textContent);
const STEP = 24; // cards drawn at a time
const COLOURS = 10; // highlight classes a0 to a9 of the style sheet

// Colours of a heatmap from cold to warm: red, green, blue, opacity (of 255).
const RAMP = [
  [25, 40, 120, 85], [45, 100, 200, 75], [70, 190, 175, 90],
  [250, 215, 80, 140], [245, 130, 40, 175], [205, 25, 45, 195],
];

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function percent(share) {
  return share === null ? "\u2013" : `${Math.round(share * 100)}%`;
}

const places = new Map((DATA.attributes || []).map((name, place) => [name, place]));

function colour(attribute) {
  if (!places.has(attribute)) places.set(attribute, places.size);
  return `a${places.get(attribute) % COLOURS}`;
}

// ---- text with highlighted spans; offsets count code points, as in the table ----

function highlighted(source, text, values) {
  const points = Array.from(text);
  const spans = values.filter(
    (v) => v.is_found !== false && v.source === source && v.start < points.length,
  );
  const cuts = new Set([0, points.length]);
  for (const span of spans) {
    cuts.add(span.start);
    cuts.add(Math.min(span.end, points.length));
  }
  const borders = [...cuts].sort((a, b) => a - b);
  const nodes = [];
  for (let i = 0; i + 1 < borders.length; i += 1) {
    const [start, end] = [borders[i], borders[i + 1]];
    const piece = points.slice(start, end).join("");
    const inside = spans.filter((v) => v.start <= start && end <= v.end);
    if (!inside.length) {
      nodes.push(piece);
      continue;
    }
    const wrong = inside.every((v) => v.correct === false) ? " wrong" : "";
    const names = inside.map((v) => v.attribute).join(", ");
    const mark = element("mark", { class: colour(inside[0].attribute) + wrong, title: names }, piece);
    if (inside.some((v) => v.end === end)) mark.append(element("small", {}, names));
    nodes.push(mark);
  }
  return nodes;
}

function textBlock(card, side) {
  return card.texts.map(({ source, text, is_cut: isCut }, place) =>
    element(
      "p",
      { class: place ? "text secondary" : "text", dir: "auto" },
      element("span", { class: "hidden" }, `${source}: `),
      highlighted(source, text, side.values),
      isCut ? "\u2026" : null,
    ),
  );
}

// ---- heatmaps ----

function ramp(level) {
  const at = level * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2);
  return RAMP[low].map((from, channel) => from + (RAMP[low + 1][channel] - from) * (at - low));
}

// The canvas has the picture's own shape, so that both are fitted into the frame alike.
function paint(canvas, map, picture) {
  const [height, width] = map.grid;
  const bytes = atob(map.weights[picture] || "");
  const image = new ImageData(width, height);
  for (let i = 0; i < bytes.length; i += 1) image.data.set(ramp(bytes.charCodeAt(i) / 255), 4 * i);
  const small = element("canvas", { width, height });
  small.getContext("2d").putImageData(image, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

function wordOf(card, map) {
  const found = card.texts.find((text) => text.source === map.source);
  return found ? Array.from(found.text).slice(map.start, map.end).join("") : "";
}

function overlaid(card, map, picture, label) {
  const { uri, width, height } = card.pictures[picture];
  const canvas = element("canvas", { role: "img", "aria-label": label, width, height });
  if (map) paint(canvas, map, picture);
  else canvas.hidden = true;
  return element(
    "div",
    { class: "overlaid" },
    element("img", { src: uri, width, height, alt: "", loading: "lazy", decoding: "async" }),
    canvas,
  );
}

function sameWord(map, other) {
  return map.source === other.source && map.start === other.start && map.end === other.end;
}

// The pictures of a card, one row per model, with a button per word that has a heatmap.
function pictures(card) {
  if (!card.pictures.length) return element("div", { class: "no-picture" }, "No picture");
  const seen = DATA.kind === "explain" ? [] : card.sides.filter((side) => side.maps.length);
  const rows = (seen.length ? seen : [card.sides[0]]).map((side) => ({
    side,
    figures: card.pictures.map((_, place) => overlaid(card, null, place, "")),
  }));
  const block = element(
    "div",
    { class: rows.length > 1 ? "looks double" : "looks" },
    rows.map(({ side, figures }) =>
      element(
        "figure",
        {},
        element("div", { class: "frames" }, figures),
        rows.length > 1 ? element("figcaption", {}, side.name) : null,
      ),
    ),
  );
  const words = [];
  for (const map of seen.flatMap((side) => side.maps)) {
    if (!words.some((word) => sameWord(word, map))) words.push(map);
  }
  if (!words.length) return block;
  const buttons = words.map((map) =>
    element("button", { type: "button", "aria-pressed": "false" }, wordOf(card, map)),
  );
  const show = (chosen) => {
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(place === chosen)));
    for (const { side, figures } of rows) {
      const map = chosen < 0 ? null : side.maps.find((m) => sameWord(m, words[chosen]));
      figures.forEach((figure, place) => {
        const canvas = figure.lastElementChild;
        canvas.hidden = !map || !map.weights[place];
        if (canvas.hidden) return;
        canvas.setAttribute("aria-label", `Where ${side.name} looks for ${wordOf(card, map)}`);
        paint(canvas, map, place);
      });
    }
  };
  buttons.forEach((button, place) =>
    button.addEventListener("click", () =>
      show(button.getAttribute("aria-pressed") === "true" ? -1 : place),
    ),
  );
  if (state.heatmaps) show(0);
  const group = element("div", { class: "words", role: "group", "aria-label": "Show where a word looks" }, buttons);
  return element("div", {}, block, group);
}

// Every word's heatmap side by side, one row per model: Fig. 6 and 7 of the paper.
function strips(card) {
  const seen = card.sides.filter((side) => side.maps.length);
  return seen.map((side) =>
    element(
      "section",
      { class: "strip", "aria-label": `Heatmaps of ${side.name}` },
      element("h3", {}, `Where the words look (${side.name})`),
      card.pictures.map((_, place) =>
        element(
          "div",
          { class: "frames wide" },
          side.maps
            .filter((map) => map.weights[place])
            .map((map) =>
              element(
                "figure",
                {},
                overlaid(card, map, place, `Where ${side.name} looks for ${wordOf(card, map)}`),
                element("figcaption", {}, wordOf(card, map)),
              ),
            ),
        ),
      ),
    ),
  );
}

// ---- one card ----

function meter(share) {
  const bar = element("meter", { min: 0, max: 1, low: 0.5, high: 0.8, optimum: 1, value: share ?? 0 });
  bar.setAttribute("aria-hidden", "true");
  return bar;
}

function verdict(value) {
  if (value.correct === null || value.correct === undefined) return null;
  return value.correct
    ? element("span", { class: "verdict right" }, "\u2713", element("span", { class: "hidden" }, " right"))
    : element("span", { class: "verdict wrong" }, "\u2717", element("span", { class: "hidden" }, " wrong"));
}

function valueRow(value) {
  const isChanged =
    value.normalized && value.normalized.toLowerCase() !== value.value.toLowerCase();
  return element(
    "li",
    {},
    element("span", { class: `key ${colour(value.attribute)}` }, value.attribute),
    element(
      "span",
      { class: "value", dir: "auto" },
      value.value,
      isChanged ? element("span", { class: "normalized" }, ` \u2192 ${value.normalized}`) : null,
      value.is_found === false && DATA.has_texts !== false
        ? element("span", { class: "normalized" }, " (the text has changed since)")
        : null,
    ),
    element("span", { class: "score" }, verdict(value), meter(value.confidence), percent(value.confidence)),
  );
}

function valueList(side, title) {
  const missed = side.missed.map(({ attribute, value }) =>
    element(
      "li",
      { class: "missed" },
      element("span", { class: "key" }, attribute),
      element("span", { class: "value", dir: "auto" }, value),
      element("span", { class: "score" }, "missed"),
    ),
  );
  if (!side.values.length && !missed.length) {
    return [title, element("p", { class: "muted" }, "No values.")];
  }
  return [title, element("ul", { class: "values" }, side.values.map(valueRow), missed)];
}

function range(side, isOpen) {
  if (!side.range.length) return null;
  return element(
    "details",
    { open: isOpen },
    element("summary", {}, `Attribute range (${side.range.length})`),
    element(
      "ul",
      { class: "values" },
      side.range.map(([attribute, score]) =>
        element(
          "li",
          {},
          element("span", { class: `key ${colour(attribute)}` }, attribute),
          element("span", { class: "score" }, meter(score), percent(score)),
        ),
      ),
    ),
  );
}

function drawCard(card, place) {
  const [first, ...others] = card.sides;
  const several = others.length > 0;
  const id = `card-${place}`;
  const sides = card.sides.map((side) => {
    if (side !== first && sameAnswer(side, first)) {
      return element("div", { class: "side muted" }, `${side.name}: the same values`);
    }
    return element(
      "div",
      { class: "side" },
      several || DATA.kind === "explain"
        ? element("h4", {}, side.name, side.status === "ok" ? null : badge(side))
        : null,
      several ? textBlock(card, side) : null,
      valueList(side, null),
      range(side, DATA.kind === "explain"),
    );
  });
  return element(
    "article",
    { class: `card ${DATA.kind}`, "aria-labelledby": id, tabindex: "-1" },
    element(
      "header",
      {},
      element("h3", { id }, card.id),
      card.category ? element("span", { class: "category" }, card.category) : null,
      several ? null : badge(first),
      card.change ? element("span", { class: "badge changed" }, card.change) : null,
    ),
    pictures(card),
    several ? null : textBlock(card, first),
    sides,
    DATA.kind === "explain" ? strips(card) : null,
  );
}

function badge(side) {
  const reason = side.reason ? `: ${side.reason.replaceAll("_", " ")}` : "";
  return element("span", { class: `badge ${side.status}` }, side.status + reason);
}

// ---- filters ----

const state = { heatmaps: DATA.heatmaps === true, shown: [], drawn: 0 };
const list = document.getElementById("cards");
const form = document.getElementById("filters");
const found = document.getElementById("found");
const more = document.getElementById("more");

for (const card of DATA.cards) {
  const words = card.sides.flatMap((side) => side.values.map((v) => `${v.value} ${v.normalized || ""}`));
  const texts = card.texts.map((text) => text.text);
  card.haystack = [card.id, card.category || "", ...texts, ...words].join("\n").toLowerCase();
  card.lowest = Math.min(2, ...card.sides[0].values.map((v) => v.confidence ?? 2));
}

function isWrong(side) {
  return side.missed.length > 0 || side.values.some((v) => v.correct === false);
}

function answer(side) {
  return side.values.map((v) => [v.attribute, v.source, v.start, v.end].join("\t")).sort().join("\n");
}

function sameAnswer(side, other) {
  return side.status === other.status && answer(side) === answer(other);
}

const KINDS = {
  all: () => true,
  wrong: (card) => card.sides.some(isWrong),
  differ: (card) => card.sides.some((side) => answer(side) !== answer(card.sides[0])),
  empty: (card) => !card.sides[0].values.length,
};

function matcher() {
  const chosen = new FormData(form);
  const words = String(chosen.get("text") || "").toLowerCase().split(/\s+/).filter(Boolean);
  const attribute = chosen.get("attribute") || "";
  const status = chosen.get("status") || "";
  const lowest = Number(chosen.get("from") || 0) / 100;
  const highest = Number(chosen.get("to") || 100) / 100;
  const kind = KINDS[chosen.get("kind")] || KINDS.all;
  const everyConfidence = lowest <= 0 && highest >= 1;
  return (card) => {
    if (status && !card.sides.some((side) => side.status === status)) return false;
    if (!words.every((word) => card.haystack.includes(word)) || !kind(card)) return false;
    if (!attribute && everyConfidence) return true;
    const values = card.sides.flatMap((side) => side.values);
    return values.some(
      (v) =>
        (!attribute || v.attribute === attribute) &&
        (everyConfidence || (v.confidence >= lowest && v.confidence <= highest)),
    );
  };
}

const ORDERS = {
  given: () => 0,
  unsure: (a, b) => a.lowest - b.lowest,
  id: (a, b) => (a.id < b.id ? -1 : 1),
};

function drawMore(isAsked) {
  const next = state.shown.slice(state.drawn, state.drawn + STEP);
  const nodes = next.map((card, place) => drawCard(card, state.drawn + place));
  list.append(...nodes);
  state.drawn += next.length;
  if (more) more.hidden = state.drawn >= state.shown.length;
  if (isAsked && nodes.length) nodes[0].focus();
}

function refresh() {
  state.shown = DATA.cards.filter(form ? matcher() : () => true);
  if (form) state.shown.sort(ORDERS[new FormData(form).get("order")] || ORDERS.given);
  state.drawn = 0;
  list.replaceChildren();
  drawMore(false);
  list.setAttribute("aria-busy", "false");
  if (found) {
    const [shown, all] = [state.shown.length.toLocaleString("en"), DATA.cards.length.toLocaleString("en")];
    found.textContent = shown === all ? `${all} products` : `${shown} of ${all} products`;
  }
}

if (form) {
  let waiting = 0;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    list.setAttribute("aria-busy", "true");
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const box = form.elements.namedItem("heatmaps");
      state.heatmaps = Boolean(box && box.checked);
      refresh();
    }, 120);
  });
  form.addEventListener("reset", () => {
    list.setAttribute("aria-busy", "true");
    setTimeout(() => form.dispatchEvent(new Event("input")), 0); // the fields are reset after this
  });
}

if (list) {
  refresh();
  if (more) {
    more.addEventListener("click", () => drawMore(true));
    const watcher = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && drawMore(false),
      { rootMargin: "600px" },
    );
    watcher.observe(more);
  }
}
