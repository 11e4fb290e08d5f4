// The commands: which tile stands where. Tiles keep their places while somebody points at them.
import { make, say } from "./dom.js";
import * as filter from "./filter.js";
import * as keys from "./keys.js";
import { line, tile } from "./tile.js";
import * as tuning from "./tuning.js";

const MANY = 60; // beyond this many, those that are fine take one line each
const IDLE_MS = 20_000; // a pointer that rests so long points at nothing
const TOUCH_MS = 5000;
const CALM_MS = 5000; // where nothing but numbers has changed, order is made anew this often

const section = document.getElementById("commands");
const heading = document.getElementById("commands-title");
const later = make("button", { type: "button", class: "later", hidden: "" });
const full = make("ul", { class: "tiles", role: "list", "aria-label": "Commands" });
const lines = make("ul", { class: "lines", role: "list", "aria-label": "Commands, one line each" });
const columns = make("p", { class: "columns soft", "aria-hidden": "true" }, "calls, errors, p99 at the end of each line");
const nothing = make("p", { class: "soft" });
section.append(later, full, columns, lines, nothing);

const items = new Map(); // by id: {row, isFull, face, set, root, isSeen, isOld, isGone}
let view = null;
let pointedAt = -Infinity;
let sortedAt = -Infinity;
let sorted = "";
let current = null; // the id of the tile that the keyboard reaches

const eye = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const item = target.item;
      item.isSeen = isIntersecting;
      if (isIntersecting && item.isOld) paint(item);
    }
  },
  { rootMargin: "100px 0px" },
);

function paint(item) {
  item.isOld = false;
  item.set(item.row, view);
}

/** Show a view. */
export function show(newest) {
  view = newest;
  section.toggleAttribute("data-tunes", tuning.ready?.() ?? true);
  const gone = new Set(items.keys());
  for (const row of view.commands) {
    gone.delete(row.id);
    const item = items.get(row.id);
    if (item === undefined) continue;
    item.row = row;
    item.isOld = true;
    if (item.isGone) part(item, false);
    if (item.isSeen) paint(item);
  }
  arrange(false);
  for (const id of gone) if (items.has(id)) part(items.get(id), true);
}

// While the order stays, what is no longer reported keeps its place, and says so.
function part(item, isGone) {
  item.isGone = isGone;
  item.root.classList.toggle("is-gone", isGone);
}

// What a new order would have to be for, besides numbers that always change a little.
const reasonsToSort = (rows) => rows.map((row) => `${row.id} ${row.level}`).sort().join("\n");

function isHeld() {
  return performance.now() - pointedAt < IDLE_MS || full.contains(document.activeElement) || lines.contains(document.activeElement);
}

function arrange(asked) {
  const rows = view.commands.filter(filter.passes);
  const reasons = `${filter.state.form} ${filter.state.sort} ${reasonsToSort(rows)}`;
  const now = performance.now();
  const due = reasons !== sorted || now - sortedAt > CALM_MS;
  if (asked || (due && !isHeld())) {
    sorted = reasons;
    sortedAt = now;
    place(rows);
  } else if (due) {
    add(rows);
    const news = reasons !== sorted;
    later.hidden = !news;
    if (news) say(later, "The order waits while you are here · sort now");
  }
  said(rows);
}

function said(rows) {
  const hidden = view.hidden > 0 ? ` · ${view.hidden} more left out: there are too many` : "";
  say(heading, `Commands ${view.commands.length}${hidden}`);
  filter.offer(view, rows.length);
  nothing.hidden = rows.length > 0;
  if (!rows.length) say(nothing, view.commands.length ? "No command passes the filter. Esc shows all." : "No command has been called yet.");
}

// Which are shown as full tiles: where there are many, only those in trouble, and of those the worst.
function fullOnes(rows) {
  if (filter.state.form === "tiles" || (filter.state.form === "auto" && rows.length <= MANY)) return new Set(rows);
  if (filter.state.form === "lines") return new Set();
  return new Set(rows.filter((row) => row.level !== "ok").sort(filter.byTrouble).slice(0, MANY));
}

function place(rows) {
  later.hidden = true;
  const focused = document.activeElement?.closest?.(".tile, .line")?.parentElement?.item ?? null;
  const chosen = fullOnes(rows);
  const ordered = [...rows].sort(filter.order());
  const kept = new Set(rows.map((row) => row.id));
  for (const id of items.keys()) if (!kept.has(id)) forget(id);
  fill(full, ordered.filter((row) => chosen.has(row)), true);
  fill(lines, ordered.filter((row) => !chosen.has(row)), false);
  settle();
  const back = focused && items.get(focused.row.id);
  if (back && document.activeElement !== back.face) back.face.focus({ preventScroll: false });
}

// While the order stays, what is new comes last.
function add(rows) {
  for (const row of rows) if (!items.has(row.id)) (lines.childElementCount ? lines : full).append(item(row, !lines.childElementCount).root);
  settle();
}

function fill(list, rows, isFull) {
  let next = list.firstElementChild;
  for (const row of rows) {
    const { root } = item(row, isFull);
    if (root === next) next = next.nextElementSibling;
    else list.insertBefore(root, next);
  }
  while (next !== null) {
    const after = next.nextElementSibling;
    if (items.get(next.item.row.id)?.root !== next) next.remove();
    next = after;
  }
}

function settle() {
  full.hidden = !full.childElementCount;
  lines.hidden = columns.hidden = !lines.childElementCount;
  if (!items.has(current)) {
    const first = full.firstElementChild ?? lines.firstElementChild;
    if (first) reach(first.item);
  }
}

function item(row, isFull) {
  let one = items.get(row.id);
  if (one?.isFull === isFull) {
    one.row = row;
    return one;
  }
  if (one) forget(row.id);
  const { face, set } = isFull ? tile(row) : line(row);
  one = { row, isFull, face, set, root: make("li", {}, face), isSeen: false, isOld: true, isGone: false };
  one.root.item = one;
  items.set(row.id, one);
  if (row.id === current) reach(one);
  eye.observe(one.root);
  return one;
}

function forget(id) {
  const { root } = items.get(id);
  eye.unobserve(root);
  root.remove();
  items.delete(id);
}

// One tile at a time is in the order of Tab, with its button: four hundred would be too many.
function reach(one) {
  const old = items.get(current);
  for (const [each, to] of [[old, "-1"], [one, "0"]])
    if (each) for (const element of [each.face, ...each.face.querySelectorAll("button")]) element.tabIndex = Number(to);
  current = one.row.id;
}

/** Go to the next tile (1), the one before (-1); the first if none has the focus. */
function go(step) {
  const all = [...full.children, ...lines.children];
  const at = all.findIndex((root) => root.contains(document.activeElement));
  const root = at < 0 ? items.get(current)?.root ?? all[0] : all[Math.min(Math.max(at + step, 0), all.length - 1)];
  if (!root) return;
  reach(root.item);
  root.item.face.focus();
  root.scrollIntoView({ block: "nearest" });
}

const under = (element) => element?.closest?.(".tile, .line")?.parentElement?.item ?? null;

for (const list of [full, lines]) {
  list.addEventListener("pointermove", (event) => event.pointerType === "mouse" && (pointedAt = performance.now()), { passive: true });
  list.addEventListener("pointerleave", () => (pointedAt = -Infinity));
  list.addEventListener("touchmove", () => (pointedAt = performance.now() - IDLE_MS + TOUCH_MS), { passive: true });
  list.addEventListener("focusin", (event) => {
    const one = under(event.target);
    if (one && one.row.id !== current) reach(one);
    if (one?.isOld) paint(one);
  });
}
later.addEventListener("click", () => {
  pointedAt = -Infinity;
  arrange(true);
});

filter.start(heading, () => view && arrange(true));
keys.start({
  go,
  tune() {
    const one = under(document.activeElement);
    if (one) tuning.open(one.row);
    return one !== null;
  },
  leave() {
    if (under(document.activeElement)) section.focus({ preventScroll: true });
    else filter.clear();
  },
});
