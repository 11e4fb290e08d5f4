// Who calls whom: a list of buttons that lie over the curves of an SVG, in the view's layers; a table says the same.
import { SIGNS, count, draw, make, mark, say, share, time } from "./dom.js";

const MANY = 24; // edges beyond which a label stands by those in trouble only, until a box is looked at
const DENSE = 60; // nodes beyond which boxes are small
const SIGN = 6.6; // how wide a sign of a label is, in a wide font
const POOR = 0.01; // the share of calls from which an edge shows how they end
const ENDS = [["failed_share", "failed"], ["shed_share", "shed"], ["not_sent_share", "not sent"]];
const KINDS = { service: "service", resource: "silent", outside: "outside", other: "folded" };
const COLUMNS = ["caller", "callee", "resource", "rate", "failed", "shed", "not sent", "waits", "notes"];
const LEVELS = { ok: "ok", warn: "watch", bad: "in trouble" };

const nodes = new Map();
const edges = new Map();
let frame, shape, held, pinned, placed, wide, size;

/** Show the map of a view; a view without one, as another release may send, says so. */
export function show(view) {
  frame ??= built();
  const map = view.map;
  const seen = Array.isArray(map?.nodes) && map.nodes.length > 0;
  say(frame.empty, seen ? "" : map?.nodes
    ? "No calls and no requests have been seen. The map draws itself from what the processes report: "
      + "the calls that they make through commands, and the callers that their requests name."
    : "Unknown: this view holds no map.");
  if (frame.empty.hidden !== seen) frame.empty.hidden = seen;
  frame.all.hidden = !seen;
  if (!seen) return;
  take(map);
  const now = JSON.stringify([[...nodes.values()].map(({ at }) => [at.name, at.kind, at.layer, at.row]), [...edges.keys()]]);
  if (now !== shape) {
    shape = now;
    lay();
  }
  edges.forEach(tell);
  nodes.forEach(name);
  label();
  if (held ?? pinned) tellHeld(held ?? pinned);
  explain(map);
  if (frame.table.open) fill();
}

function built() {
  const parts = {
    empty: make("p", { class: "map-empty" }),
    said: make("p", { class: "map-said" }),
    lines: draw("svg", { class: "map-lines", "aria-hidden": "true" }, draw("defs")),
    list: make("ul", { class: "map-nodes", "aria-label": "Services and resources; the arrow keys go from box to box" }),
    labels: make("div", { class: "map-labels", "aria-hidden": "true" }),
    notes: make("ul", { class: "map-notes" }),
    body: make("tbody"),
  };
  for (const end of ["ok", "failed", "shed", "not-sent"]) {
    const tip = { id: `tip-${end}`, class: "map-tip", "data-end": end, viewBox: "0 0 8 8", refX: 7, refY: 4, orient: "auto" };
    const inked = { markerUnits: "userSpaceOnUse", markerWidth: 9, markerHeight: 9 };
    parts.lines.firstChild.append(draw("marker", { ...tip, ...inked }, draw("path", { d: "M0 0 8 4 0 8z" })));
  }
  const key = (end, words) => make("span", { class: "map-key", "data-end": end }, words);
  parts.legend = make("p", { class: "map-legend" }, key("ok", "answered"), key("failed", "failed"), key("shed", "shed"),
    key("not-sent", "not sent"), key("silent", "one end does not report"), "the wider, the more calls");
  parts.space = make("div", { class: "map-space" }, parts.lines, parts.list, parts.labels);
  parts.box = make("div", { class: "map-box" }, parts.space);
  const head = make("thead", {}, make("tr", {}, ...COLUMNS.map((column) => make("th", { scope: "col" }, column))));
  const table = make("table", {}, make("caption", {}, "Who calls whom"), head, parts.body);
  parts.table = make("details", { class: "map-table" }, make("summary", {}, "As a table"),
    make("div", { class: "map-scroll", tabindex: "0", role: "region", "aria-label": "Who calls whom, as a table" }, table));
  parts.table.addEventListener("toggle", () => parts.table.open && fill());
  parts.all = make("div", { class: "map" }, parts.box, parts.said, parts.legend, parts.notes, parts.table);
  document.getElementById("map").append(parts.empty, parts.all);
  const of = (event) => nodes.get(event.target.closest?.("button")?.dataset.name);
  for (const [kind, holds] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]])
    parts.list.addEventListener(kind, (event) => event.pointerType !== "touch" && focusOn((held = holds ? of(event) : undefined)));
  parts.list.addEventListener("focusin", (event) => rove(event.target));
  parts.list.addEventListener("click", (event) => pin(of(event)));
  parts.list.addEventListener("keydown", (event) => go(event, of(event)));
  new ResizeObserver(() => nodes.size && wide !== parts.box.clientWidth && (lay(), label())).observe(parts.box);
  return parts;
}

/** Bring what is drawn in step with the nodes and edges that there are, by name. */
function take(map) {
  const [gone, unused] = [new Set(nodes.keys()), new Set(edges.keys())];
  for (const at of map.nodes) {
    let node = nodes.get(at.name);
    if (!node) {
      node = { title: make("bdi"), state: make("span"), notes: [] };
      node.button = make("button", { type: "button", class: "map-node", "data-name": at.name, tabindex: "-1" }, node.title, node.state);
      node.item = make("li", {}, node.button);
      say(node.title, at.name);
      nodes.set(at.name, node);
      frame.list.append(node.item);
    }
    Object.assign(node, { at, outs: [], ins: [] });
    gone.delete(at.name);
  }
  for (const of of map.edges ?? []) {
    const [from, to] = [nodes.get(of.caller), nodes.get(of.callee)];
    const key = JSON.stringify([of.caller, of.callee, of.resource ?? null]);
    let edge = edges.get(key);
    if (!from || !to || (edge && !unused.has(key))) continue;
    if (!edge) {
      edge = { line: draw("path", { class: "map-edge" }), plate: make("span", { class: "map-label", hidden: "" }) };
      edges.set(key, edge);
      frame.lines.append(edge.line);
      frame.labels.append(edge.plate);
    }
    Object.assign(edge, { of, from, to });
    from.outs.push(edge);
    to.ins.push(edge);
    unused.delete(key);
  }
  for (const [all, keys] of [[edges, unused], [nodes, gone]])
    for (const key of keys) {
      const { line, plate, row, item } = all.get(key);
      for (const element of [line, plate, row, item]) element?.remove();
      all.delete(key);
    }
  if (!nodes.has(held?.at.name)) held = undefined;
  if (!nodes.has(pinned?.at.name)) pinned = undefined;
  frame.space.classList.toggle("looking", Boolean(held ?? pinned));
}

/** Give every node and edge its place. In here u runs along the layers, and v across them. */
function lay() {
  wide = frame.box.clientWidth;
  if (!wide) return;
  const layers = [];
  for (const node of nodes.values()) (layers[node.at.layer | 0] ??= []).push(node);
  const ranks = layers.filter(Boolean);
  const most = Math.max(...ranks.map((rank) => rank.length));
  const dense = nodes.size > DENSE;
  const [w, h] = [dense || wide < 600 ? 124 : 144, dense ? 38 : 44];
  const needs = ranks.length * (w + 100) - 64;
  const down = needs > wide && most * (w + 12) < needs;
  const [long, across] = down ? [h, w] : [w, h];
  const even = (room, least, best) => Math.min(best, Math.max(least, room));
  const gap = down ? 70 : even((wide - 36 - ranks.length * w) / Math.max(1, ranks.length - 1), 100, 210);
  const step = across + (down ? even(wide / most - w - 8, 12, 50) : dense ? 10 : nodes.size > 16 ? 18 : 44);
  size = { w, h, down, room: down ? 126 : gap - 12 };
  frame.space.classList.toggle("dense", dense);
  frame.space.classList.toggle("many", edges.size > MANY);
  ranks.forEach((rank, number) => {
    rank.sort((a, b) => a.at.row - b.at.row);
    rank.forEach((node, row) => Object.assign(node, { number, u: number * (long + gap), v: (row - (rank.length - 1) / 2) * step }));
  });
  const end = ((most - 1) / 2) * step;
  for (let sweep = 0; sweep < 8; sweep++)
    for (const rank of sweep % 2 ? ranks : ranks.slice().reverse()) align(rank, sweep % 2 ? "ins" : "outs", step, end);
  for (const node of nodes.values())
    for (const [side, far, port] of [["outs", "to", "out"], ["ins", "from", "in"]]) {
      const sorted = node[side].slice().sort((a, b) => a[far].v - b[far].v);
      sorted.forEach((edge, i) => (edge[port] = node.v + (i - (sorted.length - 1) / 2) * Math.min(9, (across - 14) / sorted.length)));
    }
  const used = [0, 0]; // ways around, above and below
  for (const edge of edges.values()) edge.way = way(edge, { ranks, long, across, gap, step, used });
  settle(long, across);
}

/** Move the nodes of a layer toward the middle of those that they are joined to, in their order, a step apart. */
function align(rank, side, step, end) {
  const blocks = [];
  rank.forEach((node, i) => {
    const far = node[side].map((edge) => (side === "ins" ? edge.from : edge.to)).filter((other) => other.number !== node.number);
    const mean = far.length ? far.reduce((sum, other) => sum + other.v, 0) / far.length : node.v;
    const wanted = Math.min(end - (rank.length - 1 - i) * step, Math.max(-end + i * step, mean)) - i * step;
    let block = [wanted, 1];
    while (blocks.length && blocks.at(-1)[0] / blocks.at(-1)[1] > block[0] / block[1])
      block = blocks.pop().map((value, part) => value + block[part]);
    blocks.push(block);
  });
  const places = blocks.flatMap(([sum, many]) => Array(many).fill(sum / many));
  rank.forEach((node, i) => (node.v = places[i] + i * step));
}

/** Return an edge's way as curves, each of four points, and straight lines, each of two. */
function way({ from, to, out, in: into }, { ranks, long, across, gap, step, used }) {
  const [u, end] = [from.u + long, to.u];
  if (from === to) return [[[u, from.v], [u + 44, from.v], [u + 30, from.v + across / 2 + 22], [u - 22, from.v + across / 2]]];
  const wide_u = u + Math.min(gap * 0.7, 26 + Math.abs(from.v - to.v) * 0.2);
  if (from.number === to.number) return [[[u, out], [wide_u, out], [wide_u, into], [u, into]]];
  if (from.number > to.number) {
    const all = ranks.slice(to.number, from.number + 1).flat().map((node) => node.v);
    const below = from.v + to.v >= 0;
    const lane = (below ? Math.max(...all) + across / 2 : Math.min(...all) - across / 2) + (16 + 9 * used[+below]++) * (below ? 1 : -1);
    const g = Math.min(gap * 0.5, 54);
    return [[[u, out], [u + g, out], [u + g, lane], [u, lane]], [[u, lane], [end, lane]], [[end, lane], [end - g, lane], [end - g, into], [end, into]]];
  }
  const ways = [];
  let at = [u, out];
  const bend = (next) => {
    const half = (next[0] - at[0]) / 2;
    ways.push([at, [at[0] + half, at[1]], [next[0] - half, next[1]], next]);
    at = next;
  };
  for (let number = from.number + 1; number < to.number; number++) {
    const rank = ranks[number];
    let v = at[1] + (into - at[1]) / (to.number - number + 1);
    const free = (place) => rank.every((node) => Math.abs(node.v - place) > across / 2 + 3);
    if (!free(v)) v = rank.flatMap((node) => [node.v - step / 2, node.v + step / 2]).filter(free).sort((a, b) => Math.abs(a - v) - Math.abs(b - v))[0] ?? v;
    bend([rank[0].u, v]);
    ways.push([at, (at = [rank[0].u + long, v])]);
  }
  bend([end, into]);
  return ways;
}

/** Turn u and v into x and y, and put everything where it belongs. */
function settle(long, across) {
  const points = [...edges.values()].flatMap((edge) => edge.way.flat());
  for (const { from, to } of edges.values()) if (from.number === to.number) points.push([from.u + long + (size.down ? 60 : 130), from.v]);
  for (const { u, v } of nodes.values()) points.push([u, v - across / 2], [u + long, v + across / 2]);
  const least = [0, 1].map((axis) => Math.min(...points.map((point) => point[axis])));
  const extent = [0, 1].map((axis) => Math.max(...points.map((point) => point[axis])) - least[axis] + 36);
  const shift = [18 - least[0], 18 - least[1]];
  const flip = size.down ? 1 : 0;
  const spare = Math.max(0, wide - extent[flip]);
  shift[flip] += spare / 2;
  extent[flip] += spare;
  const place = ([u, v]) => (size.down ? [v + shift[1], u + shift[0]] : [u + shift[0], v + shift[1]]).map(Math.round);
  const [width, height] = size.down ? [extent[1], extent[0]] : extent;
  Object.assign(frame.space.style, { width: `${Math.floor(width)}px`, height: `${Math.ceil(height)}px` });
  Object.entries({ width, height }).forEach(([name, value]) => mark(frame.lines, name, String(Math.ceil(value))));
  for (const node of nodes.values()) {
    [node.x, node.y] = place([node.u, node.v - across / 2]);
    Object.assign(node.item.style, { left: `${node.x}px`, top: `${node.y}px`, width: `${size.w}px`, height: `${size.h}px` });
  }
  for (const edge of edges.values()) {
    const ways = edge.way.map((part) => part.map(place));
    mark(edge.line, "d", `M${ways[0][0]}${ways.map((part) => (part.length > 2 ? "C" : "L") + part.slice(1).join(" ")).join("")}`);
    edge.spots = ways.flatMap((part) => [0.5, 0.4, 0.6, 0.3, 0.7, 0.22, 0.78].map((t) => [Math.abs(t - 0.5), on(part, t)]))
      .sort((a, b) => a[0] - b[0]).map((spot) => spot[1]);
    edge.spot = undefined;
  }
  if (!frame.list.querySelector("[tabindex='0']")) rove(nodes.values().next().value.button);
  frame.box.scrollTop ||= (height - frame.box.clientHeight) / 2;
  placed = undefined;
}

const on = (part, t) => (part.length < 2 ? part[0] : on(part.slice(1).map((point, i) => point.map((value, axis) => part[i][axis] * (1 - t) + value * t)), t));

const number = (value) => (Number.isFinite(value) ? value : 0);
const rate = (value) => (Number.isFinite(value) ? `${count(value)}/s` : "rate unknown");
const short = (text) => ([...text].length > 18 ? `${[...text].slice(0, 17).join("")}…` : text);

/** Say of an edge how often it is used, and how that ends. */
function tell(edge) {
  const { of, from, to, line } = edge;
  const [worst, word] = ENDS.map(([field, named]) => [number(of[field]), named]).reduce((a, b) => (b[0] > a[0] ? b : a));
  const end = worst >= POOR ? word.replace(" ", "-") : "ok";
  const silent = to.at.kind === "resource" || (of.wait_s == null && from.at.kind !== "outside");
  edge.trouble = (of.level === "bad" ? 4 : of.level === "warn" ? 2 : 0) + worst;
  edge.parts = [rate(of.rate_per_s)];
  if (of.resource && of.resource !== of.callee) edge.parts[0] = `${short(of.resource)}: ${edge.parts[0]}`;
  if (worst >= 0.001) edge.parts.push(`${share(worst)} ${word}`);
  if (of.wait_s != null) edge.parts.push(`waits ${time(of.wait_s)}`);
  if (line.dataset.end !== end && end !== "ok") frame.lines.append(line); // trouble lies above
  mark(line, "data-end", end);
  mark(edge.plate, "data-end", end);
  mark(line, "marker-end", `url(#tip-${end})`);
  mark(line, "data-silent", silent ? "" : null);
  mark(line, "stroke-width", (1 + Math.min(4, Math.log10(1 + Math.max(0, number(of.rate_per_s))))).toFixed(1));
}

/** Say of a node what it is, how it fares, and how much comes in. */
function name(node) {
  const { at, ins, outs } = node;
  const level = SIGNS[at.level] ? at.level : "ok";
  const total = ins.reduce((sum, { of }) => sum + number(of.rate_per_s), 0);
  const part = (field) => {
    const mean = total ? ins.reduce((sum, { of }) => sum + number(of[field]) * number(of.rate_per_s), 0) / total : 0;
    return mean >= POOR ? ` ${Math.round(mean * 100)} %` : "";
  };
  const words = [];
  if (at.sheds) words.push(`sheds${part("shed_share")}`);
  if (at.suffers) words.push("suffers");
  if (!words.length && level !== "ok") words.push(part("failed_share") ? `fails${part("failed_share")}` : LEVELS[level]);
  const kind = KINDS[at.kind] ?? String(at.kind);
  const much = total ? rate(total) : outs.length ? "calls" : "quiet";
  say(node.state, `${SIGNS[level]} ${[...words, ...(at.kind === "service" ? [] : [kind]), ...(words.length ? [] : [much])].join(" · ")}`);
  mark(node.button, "data-level", level);
  mark(node.button, "data-kind", KINDS[at.kind] ? at.kind : "other");
  node.words = [kind, LEVELS[level], ...words.filter((word) => word !== LEVELS[level])].join(", ");
  // A rate that changes under the reader's focus is not read out each second.
  if (node.words === node.heard && document.activeElement === node.button) return;
  node.heard = node.words;
  mark(node.button, "aria-label", `${at.name} ${node.state.textContent}: ${node.words}; called by ${ins.length}, calls ${outs.length}`);
}

/** Put labels where they cover neither a box nor each other; an edge that finds no room keeps its words for the table. */
function label() {
  if (!wide) return;
  const looked = held ?? pinned;
  const all = [...edges.values()], many = all.length > MANY;
  const shown = all.filter(({ from, to, trouble }) => (looked ? from === looked || to === looked : !many || trouble >= POOR));
  for (const edge of shown) {
    const lines = edge.parts.slice(0, 1);
    for (const part of edge.parts.slice(1)) {
      const joined = `${lines.at(-1)} · ${part}`;
      joined.length * SIGN <= size.room ? lines.splice(-1, 1, joined) : lines.push(part);
    }
    edge.text = lines.join("\n");
    edge.w = Math.max(...lines.map((line) => line.length)) * SIGN + 8;
    edge.h = lines.length * 14 + 4;
  }
  const now = JSON.stringify([looked?.at.name, shown.map(({ w, h, of }) => [w, h, of.caller, of.callee, of.resource])]);
  if (now !== placed) find(shown, all);
  placed = now;
  for (const edge of shown) if (!edge.plate.hidden) say(edge.plate, edge.text);
  if (!looked) say(frame.said, `${many ? "Labels stand by edges in trouble. " : ""}Point at a box, or focus or tap it, to see its calls alone.`);
}

function find(shown, all) {
  const taken = [...nodes.values()].map(({ x, y }) => [x - 2, y - 2, x + size.w + 2, y + size.h + 2]);
  const [right, bottom] = [parseFloat(frame.space.style.width), parseFloat(frame.space.style.height)];
  const rest = new Set(all);
  for (const edge of shown.slice().sort((a, b) => b.trouble - a.trouble)) {
    const { w, h, spots, spot, from, to } = edge;
    // Beside the curve, where that only leads around a corner.
    const [aside, below] = from.number !== to.number ? [0, 0] : size.down ? [0, h / 2] : [w / 2 + 2, 0];
    const box = ([x, y]) => [x + aside - w / 2, y + below - h / 2, x + aside + w / 2, y + below + h / 2];
    const free = ([x1, y1, x2, y2]) => x1 >= 0 && y1 >= 0 && x2 <= right && y2 <= bottom
      && taken.every((other) => x2 <= other[0] || other[2] <= x1 || y2 <= other[1] || other[3] <= y1);
    edge.spot = [...(spot ? [spot] : []), ...spots].find((place) => free(box(place)));
    if (!edge.spot) continue;
    taken.push(box(edge.spot));
    rest.delete(edge);
    Object.assign(edge.plate.style, { left: `${edge.spot[0] + aside}px`, top: `${edge.spot[1] + below}px` });
    edge.plate.hidden = false;
  }
  for (const edge of rest) edge.plate.hidden = true;
}

function pin(node) {
  pinned = node === pinned ? undefined : node;
  for (const { button } of nodes.values()) mark(button, "aria-pressed", button === pinned?.button ? "true" : null);
  focusOn();
}

/** Let the edges of the box that is looked at come forward. */
function focusOn() {
  const looked = held ?? pinned, near = new Set([looked]);
  frame.space.classList.toggle("looking", Boolean(looked));
  for (const { from, to, line } of edges.values()) {
    const is = looked && (from === looked || to === looked);
    if (is) near.add(from).add(to);
    line.classList.toggle("near", Boolean(is));
  }
  for (const node of nodes.values()) node.item.classList.toggle("near", near.has(node));
  if (looked) tellHeld(looked);
  label();
}

function tellHeld({ at, words, ins, outs }) {
  const list = (all, end) => all.map(({ of, parts }) => `${of[end]} (${parts.join(", ")})`).join("; ");
  say(frame.said, [`${at.name}: ${words}`, ins.length && `called by ${list(ins, "caller")}`, outs.length && `calls ${list(outs, "callee")}`,
    ...(at.notes ?? [])].filter(Boolean).join(". "));
}

/** Arrow keys go to the nearest box that way, Escape lets go. */
function go(event, from) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
  if (event.key === "Escape" && pinned) pin(pinned);
  if (dx === undefined || !from) return;
  event.preventDefault();
  const far = ({ x, y }) => {
    const [ahead, aside] = dx ? [(x - from.x) * dx, Math.abs(y - from.y)] : [(y - from.y) * dy, Math.abs(x - from.x)];
    return ahead > 4 ? ahead + aside * 2 : Infinity;
  };
  const next = [...nodes.values()].reduce((best, node) => (far(node) < far(best) ? node : best), from);
  next.button.focus();
}

/** One box is reached with Tab, the one that was looked at last. */
function rove(button) {
  for (const node of nodes.values()) mark(node.button, "tabindex", node.button === button ? "0" : "-1");
}

/** List the notes below the map, each once, with whom it is about. */
function explain(map) {
  const about = new Map((map.notes ?? []).map((note) => [note, []]));
  const add = (note, who) => about.set(note, [...(about.get(note) ?? []), who]);
  for (const { at } of nodes.values()) for (const note of at.notes ?? []) add(note, at.name);
  for (const { of } of edges.values()) for (const note of of.notes ?? []) add(note, `${of.caller} → ${of.callee}`);
  const lines = [...about].map(([note, who]) => {
    const named = who.slice(0, 6).join(", ") + (who.length > 6 ? ` and ${who.length - 6} more` : "");
    return named ? `${named}: ${note}` : note;
  });
  while (frame.notes.childElementCount > lines.length) frame.notes.lastChild.remove();
  lines.forEach((line, i) => say(frame.notes.children[i] ?? frame.notes.appendChild(make("li", { dir: "auto" })), line));
}

function fill() {
  for (const edge of edges.values()) {
    const { of } = edge;
    edge.row ??= frame.body.appendChild(make("tr", {}, make("th", { scope: "row" }), ...COLUMNS.slice(1).map(() => make("td"))));
    const cells = [of.caller, of.callee, of.resource ?? "–", rate(of.rate_per_s),
      ...ENDS.map(([field]) => (Number.isFinite(of[field]) ? share(of[field]) : "unknown")), time(of.wait_s), (of.notes ?? []).join(". ")];
    cells.forEach((text, i) => say(edge.row.cells[i], text));
  }
}
