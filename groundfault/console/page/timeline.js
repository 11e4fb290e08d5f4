// What happened: a chart of the last minutes or hours, and the same as a list, to read an incident back afterwards.
// Entries are kept by id, so that nothing moves under the reader's eyes but what has changed.
import { SIGNS, count, make, mark, say, share, time } from "./dom.js";
import { author } from "./tuning.js";

const MOST = 500;
const LANES = 14;
const SPANS = [[900, "15 min"], [3600, "1 h"], [21600, "6 h"], [86400, "24 h"]];
const STEPS = [60, 180, 600, 1800, 3600, 14400, 43200, 86400, 604800];
const KINDS = {
  circuit: "circuit", shedding: "shedding", concurrency: "concurrency", throttle: "held back", saturated: "callee saturated",
  unhealthy: "unhealthy", settings: "settings", process: "process", host: "host", gap: "not observed",
};
const MARKS = new Set(["settings", "process", "host", "gap"]); // one lane for each of these kinds: they explain the others
const ONE = { processes: "process", trips: "trip", changes: "change", hosts: "host", calls: "call" };

const entries = new Map();
const lanes = new Map();
const kinds = new Map();
let frame, view, span, end, chosen;

/** Show the timeline of a view; one without, as another release may send, says so. */
export function show(next) {
  frame ??= built();
  view = next;
  const known = Array.isArray(view.timeline);
  const list = (view.timeline ?? []).filter((each) => Number.isFinite(each?.began_at)).slice(0, MOST);
  if (span === undefined && list.length) {
    const ago = view.made_at - Math.max(...list.map((each) => each.ended_at ?? view.made_at));
    pick((SPANS.find(([s]) => s >= 3600 && s > ago) ?? [Infinity])[0]);
  }
  frame.body.hidden = !list.length;
  const nothing = "Nothing has happened since this was first watched: no circuit tripped, nobody shed, no setting changed.";
  say(frame.empty, list.length ? "" : known ? nothing : "Unknown: this view holds no timeline.");
  frame.empty.hidden = list.length > 0;
  take(list.sort((a, b) => b.began_at - a.began_at));
  redraw();
}

function built() {
  const section = document.getElementById("timeline");
  const button = (words, does, more = {}) => {
    const made = make("button", { type: "button", ...more }, words);
    made.addEventListener("click", does);
    return made;
  };
  const parts = {
    empty: make("p", { class: "past-empty" }),
    axis: make("div", { class: "past-axis" }), lanes: make("div", { class: "past-lanes" }), more: make("p", { class: "past-more" }),
    list: make("ol", { class: "past-list" }), told: make("p", { role: "status", class: "past-told" }),
    kinds: make("fieldset", { class: "past-kinds" }, make("legend", {}, "Kinds")),
    text: make("input", { type: "search", placeholder: "Filter by text", "aria-label": "Filter what happened by text" }),
    copied: make("textarea", { class: "past-copied", readonly: "", hidden: "", rows: "8", "aria-label": "What is shown, as text" }),
  };
  parts.spans = [...SPANS, [Infinity, "All"]].map(([s, words]) => [s, button(words, () => pick(s))]);
  parts.then = button("Back to now", () => pick(span));
  const bar = make("div", { class: "past-bar" }, make("span", { role: "group", "aria-label": "How far back" }, ...parts.spans.map((each) => each[1])),
    parts.then, parts.text, button("Copy as text", copy));
  parts.chart = make("div", { class: "past-chart", "aria-hidden": "true" }, parts.axis, parts.lanes, parts.more);
  parts.body = make("div", { class: "past" }, bar, parts.kinds, parts.told, parts.copied, parts.chart, parts.list);
  section.append(parts.empty, parts.body);
  parts.text.addEventListener("input", redraw);
  const of = (event) => entries.get(event.target.closest("[data-id]")?.dataset.id);
  for (const place of [parts.list, parts.lanes]) {
    for (const kind of ["pointerover", "focusin"]) place.addEventListener(kind, (event) => hold(of(event)));
    for (const kind of ["pointerout", "focusout"]) place.addEventListener(kind, () => hold());
  }
  parts.lanes.addEventListener("click", (event) => {
    const entry = of(event);
    entry?.item.scrollIntoView({ block: "nearest" });
    entry?.when.focus();
  });
  parts.list.addEventListener("click", (event) => event.target.closest("button") && zoom(of(event)));
  return parts;
}

/** Show the last ``span`` seconds before ``until``, which is now unless it is given. */
function pick(seconds, until) {
  span = seconds;
  end = seconds === Infinity ? undefined : until;
  for (const [s, button] of frame.spans) mark(button, "aria-pressed", String(s === span));
  redraw();
}

/** Show an entry with some time around it. */
function zoom({ of }) {
  const lasted = (of.ended_at ?? view.made_at) - of.began_at;
  const [seconds] = SPANS.find(([s]) => s >= lasted * 1.5) ?? [Infinity];
  const until = of.began_at + lasted / 2 + seconds / 2;
  pick(seconds, until < view.made_at ? until : undefined);
}

function range() {
  if (span !== Infinity) return [(end ?? view.made_at) - span, end ?? view.made_at];
  const first = Math.min(view.made_at - 60, ...[...entries.values()].map(({ of }) => of.began_at));
  return [first - (view.made_at - first) * 0.02, view.made_at];
}

/** Bring the list in step with the timeline: entries that stay are not touched. */
function take(list) {
  const gone = new Set(entries.keys());
  const today = day.format(view.made_at * 1000);
  let place = frame.list.firstChild;
  list.forEach((of, i) => {
    const id = String(of.id ?? `${of.kind} ${of.subject} ${of.began_at}`);
    let entry = entries.get(id);
    if (entry && !gone.has(id)) return;
    if (!entry) entries.set(id, (entry = fresh(id)));
    gone.delete(id);
    entry.of = of;
    const { item } = entry;
    if (item === place) place = place.nextSibling;
    else frame.list.insertBefore(item, place);
    entry.author = of.kind === "settings" && !of.by ? author(of.what) ?? of : of;
    const told = `${today}${JSON.stringify(of)}${entry.author.version}`;
    if (told !== entry.told) write(entry);
    else if (entry.open) last(entry);
    entry.told = told;
  });
  for (const id of gone) {
    const { item, bar } = entries.get(id);
    item.remove();
    bar.remove();
    entries.delete(id);
  }
}

function fresh(id) {
  const part = (tag, kind) => make(tag, { class: `past-${kind}` });
  const entry = { when: make("button", { type: "button", class: "past-when" }), lasted: part("span", "lasted"), kind: part("span", "kind"),
    who: part("bdi", "who"), subject: part("bdi", "subject"), what: part("span", "what"), by: part("span", "by") };
  entry.item = make("li", { "data-id": id }, entry.when, entry.lasted, entry.kind,
    make("span", { class: "past-said" }, entry.who, " ", entry.subject, " ", entry.what, " ", entry.by));
  entry.bar = make("i", { "data-id": id });
  return entry;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const iso = (seconds) => new Date(seconds * 1000).toISOString();

/** Say an entry in words. */
function write(entry) {
  const { of } = entry;
  const now = view.made_at;
  const today = day.format(now * 1000) === day.format(of.began_at * 1000);
  const when = `${today ? "" : `${day.format(of.began_at * 1000)} `}${clock.format(of.began_at * 1000)}`;
  const level = SIGNS[of.level] ? of.level : "ok";
  entry.open = of.ended_at === null || of.ended_at === undefined;
  entry.from = of.began_at;
  entry.to = entry.open ? Infinity : of.ended_at;
  entry.spoken = KINDS[of.kind] ?? String(of.kind);
  last(entry);
  entry.counted = Object.entries(of.numbers ?? {}).map(counted).join(", ");
  const { by, reason } = entry.author;
  entry.whose = [by && `by ${by}`, reason && `“${reason}”`].filter(Boolean).join(": ");
  say(entry.when, when);
  mark(entry.when, "title", `${iso(of.began_at)}${of.ended_at > of.began_at ? ` to ${iso(of.ended_at)}` : ""}`);
  mark(entry.when, "aria-label", `${when}, show this time in the chart`);
  say(entry.kind, `${SIGNS[level]} ${entry.spoken}`);
  say(entry.who, of.service && of.service !== of.subject ? of.service : "");
  say(entry.subject, of.subject ?? "");
  say(entry.what, [of.what, entry.counted].filter(Boolean).join(" · "));
  say(entry.by, entry.whose);
  mark(entry.item, "data-level", level);
  mark(entry.item, "data-open", entry.open ? "" : null);
  entry.found = [of.service, of.subject, of.what, by, reason, entry.spoken].join(" ").toLowerCase();
}

function last(entry) {
  const lasted = (entry.open ? view.made_at : entry.to) - entry.from;
  entry.lasts = entry.open ? `still, for ${span_of(lasted)}` : lasted > 0 ? span_of(lasted) : "";
  say(entry.lasted, entry.lasts);
}

function span_of(seconds) {
  if (seconds < 60) return time(Math.max(0, seconds < 10 ? seconds : Math.round(seconds)));
  const [whole, unit, small] = seconds < 3600 ? [60, "min", "s"] : [3600, "h", "min"];
  const rest = Math.floor(((seconds % whole) / whole) * 60);
  return `${Math.floor(seconds / whole)} ${unit}${rest ? ` ${rest} ${small}` : ""}`;
}

/** {wait_p99_s: 0.31} -> "wait p99 310 ms"; {processes: 3} -> "3 processes". */
function counted([name, value]) {
  const [, bare, unit] = name.replaceAll("_", " ").match(/^(.*?)( per s| share| s)?$/);
  if (!Number.isFinite(value)) return `${bare} unknown`;
  const many = Number.isInteger(value) ? value.toLocaleString("en-US") : count(value);
  if (!unit) return ONE[name] ? `${many} ${value === 1 ? ONE[name] : name}` : `${bare} ${many}`;
  return `${bare} ${unit === " s" ? time(value) : unit === " share" ? share(value) : `${many}/s`}`;
}

/** Show what the filters leave, in the list and in the chart. */
function redraw() {
  if (!entries.size) return;
  const [from, to] = range();
  boxes();
  const words = frame.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  let [shown, outside] = [0, 0];
  for (const entry of entries.values()) {
    const fits = kinds.get(entry.of.kind).checked && words.every((word) => entry.found.includes(word));
    const within = entry.to >= from && entry.from <= to;
    entry.shown = fits && within;
    if (entry.item.hidden === entry.shown) entry.item.hidden = !entry.shown;
    if (entry.shown) shown++;
    else if (fits) outside++;
  }
  frame.then.hidden = end === undefined;
  say(frame.told, chosen ?? `${shown || "Nothing"} shown${outside ? `, ${outside} at other times` : ""}`);
  chart(from, to);
}

/** A box for each kind that there has been. */
function boxes() {
  for (const { of: { kind }, spoken } of entries.values()) {
    if (kinds.has(kind)) continue;
    const box = make("input", { type: "checkbox", checked: "" });
    box.addEventListener("change", redraw);
    kinds.set(kind, box);
    frame.kinds.append(make("label", {}, box, spoken));
  }
}

/** Draw the lanes: first what people and processes did, then every trouble in the order in which it began. */
function chart(from, to) {
  const width = (to - from) / 800; // what moves less than a pixel or so need not move
  const now = Math.ceil(to / width) * width;
  const wanted = new Map();
  for (const entry of [...entries.values()].filter((each) => each.shown).sort((a, b) => a.from - b.from)) {
    const { kind, service, subject } = entry.of;
    const key = JSON.stringify(MARKS.has(kind) ? [kind] : [kind, service ?? "", subject]);
    if (!wanted.has(key)) wanted.set(key, []);
    wanted.get(key).push(entry);
  }
  const order = [...wanted.keys()].sort((a, b) => MARKS.has(wanted.get(b)[0].of.kind) - MARKS.has(wanted.get(a)[0].of.kind));
  let place = frame.lanes.firstChild;
  for (const key of order.slice(0, LANES)) {
    const its = wanted.get(key);
    if (!lanes.has(key)) {
      const [name, track] = [make("span", { class: "past-name" }, make("b"), " ", make("bdi")), make("span", { class: "past-track" })];
      lanes.set(key, { name, track, lane: make("div", { class: "past-lane" }, name, track) });
    }
    const { name, track, lane } = lanes.get(key);
    const { of, spoken } = its[0];
    const worst = ["bad", "warn"].find((level) => its.some((entry) => entry.of.level === level)) ?? "ok";
    say(name.firstChild, `${SIGNS[worst]} ${spoken}`);
    say(name.lastChild, MARKS.has(of.kind) ? "" : String(of.subject ?? ""));
    mark(lane, "data-level", worst);
    if (lane === place) place = place.nextSibling;
    else frame.lanes.insertBefore(lane, place);
    const bars = new Set(its.map((entry) => entry.bar));
    for (const bar of [...track.children]) if (!bars.has(bar)) bar.remove();
    for (const entry of its) draw(entry, track, (at) => ((Math.min(at, now) - now + to - from) / (to - from)) * 100);
  }
  for (let next; place; place = next) {
    next = place.nextSibling;
    place.remove();
  }
  for (const key of lanes.keys()) if (!wanted.has(key)) lanes.delete(key);
  say(frame.more, order.length > LANES ? `${order.length - LANES} more rows are in the list below` : "");
  axis(from, to, now);
}

function draw(entry, track, share_of) {
  const { bar, of } = entry;
  if (bar.parentNode !== track) track.append(bar);
  const [left, right] = [Math.max(0, share_of(entry.from)), Math.min(100, share_of(entry.to))];
  const style = `${left.toFixed(2)} ${right.toFixed(2)}`;
  if (entry.style !== style) {
    entry.style = style;
    bar.style.left = `${left.toFixed(2)}%`;
    bar.style.width = `${Math.max(0, right - left).toFixed(2)}%`;
  }
  mark(bar, "class", entry.to === entry.from ? "moment" : entry.open ? "open" : "span");
  mark(bar, "data-level", SIGNS[of.level] ? of.level : "ok");
}

function axis(from, to, now) {
  const step = STEPS.find((seconds) => (to - from) / seconds <= 6.5) ?? STEPS.at(-1);
  const away = new Date(to * 1000).getTimezoneOffset() * 60;
  const ticks = [];
  for (let at = Math.ceil((from - away) / step) * step + away; at <= to - (to - from) / 25; at += step) ticks.push(at);
  while (frame.axis.children.length > ticks.length) frame.axis.lastChild.remove();
  ticks.forEach((at, i) => {
    const tick = frame.axis.children[i] ?? frame.axis.appendChild(make("span"));
    const left = `${(((at - now + to - from) / (to - from)) * 100).toFixed(2)}%`;
    if (tick.style.left !== left) tick.style.left = left;
    say(tick, step >= 86400 ? day.format(at * 1000) : clock.format(at * 1000).slice(0, 5));
  });
}

/** An entry and its bar stand out together. */
function hold(entry) {
  for (const { item, bar } of entries.values()) for (const each of [item, bar]) each.classList.toggle("held", item === entry?.item);
}

// A name must not be able to begin a line of its own in a report, nor to turn it around.
const clean = (text) => String(text ?? "").replace(/\p{C}|\p{Zl}|\p{Zp}/gu, "\uFFFD");

/** What is shown, the oldest first, a line each, in UTC. */
function text() {
  const [from, to] = range();
  const lines = [...entries.values()].filter((entry) => entry.shown).sort((a, b) => a.from - b.from).map((entry) => {
    const { of, lasts, spoken, counted: numbers, whose } = entry;
    const who = of.service && of.service !== of.subject ? [of.service, of.subject] : [of.subject];
    return [iso(of.began_at), lasts || "at once", `${(SIGNS[of.level] && of.level) || "ok"}: ${spoken}`, ...who, of.what, numbers, whose].filter(Boolean).map(clean).join(" | ");
  });
  return [`${clean(view.title)} (${clean(view.host)}), ${iso(from)} to ${iso(to)}`, ...lines, ""].join("\n");
}

async function copy() {
  const lines = text();
  try {
    await navigator.clipboard.writeText(lines);
    chosen = "Copied";
    frame.copied.hidden = true;
  } catch { // without https, or where it is not allowed, browsers keep the clipboard to themselves
    chosen = "The clipboard is not to be had here: copy the text below";
    frame.copied.value = lines;
    frame.copied.hidden = false;
    frame.copied.select();
  }
  say(frame.told, chosen);
  setTimeout(() => ((chosen = undefined), redraw()), 4000);
}
