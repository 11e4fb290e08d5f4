// What one command looks like: a full tile, or one line among many.
import { bar, count, make, mark, say, share, sign, sparkline, time } from "./dom.js";
import { inModes } from "./servers.js";
import * as tuning from "./tuning.js";

// Column by column: made and judged; refused by the callee, or nobody's fault; never made.
const COUNTERS = [
  ["success", "success", "ok"], ["shed", "shed", "shed"], ["circuit-open", "circuit open", "bad"],
  ["failure", "failure", "bad"], ["throttled", "throttled", "shed"], ["bulkhead-full", "bulkhead full", "warn"],
  ["timeout", "timeout", "bad"], ["ignored", "ignored", "ok"], ["unhealthy", "unhealthy", "warn"],
];
const REASONS = 3;

const perSecond = (row) => `${count(row.rate_per_s)}/s`;
const errorLevel = (row) => (row.error_share >= 0.1 ? "bad" : row.error_share >= 0.01 ? "warn" : null);

/** "OPEN in 3 of 8 workers, half-open in 1". */
export function circuit(row) {
  const total = row.processes || Object.values(row.states).reduce((sum, number) => sum + number, 0) || 1;
  const places = Object.entries(row.states).filter(([state, number]) => state !== "closed" && number > 0);
  if (!places.length) return row.state === "open" ? "OPEN" : row.state;
  places.sort(([one], [other]) => (other === "open") - (one === "open"));
  return places.map(([state, number], index) => {
    const name = state === "open" ? "OPEN" : state;
    if (total === 1) return name;
    return index ? `${name} in ${number}` : `${name} in ${number} of ${total} workers`;
  }).join(", ");
}

const isOpen = (row) => row.state === "open" || row.states.open > 0;
const standing = (row) => (isOpen(row) ? "bad" : row.state === "closed" && !row.states["half-open"] ? "ok" : "warn");

function named(row, level) {
  const command = make("span", { class: "command" }, row.command || "(no name)");
  const resource = make("span", { class: "resource" }, row.resource);
  const id = `c${(identity += 1)}`;
  const whole = `${row.resource} / ${row.command}${row.service ? `, called by ${row.service}` : ""}`;
  return { id, heading: make("h3", { id, title: whole }, level.root, resource, make("span", { class: "slash" }, " / "), command) };
}
let identity = 0;

function tuneButton(row, newest) {
  const button = make("button", { type: "button", class: "tune", tabindex: "-1", "aria-label": `Tune ${row.resource} / ${row.command}` }, "Tune");
  button.addEventListener("click", () => tuning.open(newest()));
  return button;
}

/** A full tile. ``set(row, view)`` brings it up to date. */
export function tile(first) {
  let newest = first;
  const level = sign(first.level);
  const { id, heading } = named(first, level);
  const modes = make("span", { class: "badge" });
  const head = make("header", {}, heading, modes, tuneButton(first, () => newest));
  const face = make("article", { class: "tile", tabindex: "-1", "aria-labelledby": id }, head);
  let parts = null;

  function build() {
    const disc = make("i", { class: "disc", "aria-hidden": "true" });
    const curve = sparkline("Calls");
    const errors = make("b");
    const rate = make("b");
    const state = make("b");
    const service = make("span", { class: "service-name", title: first.service }, first.service ?? "");
    const counters = COUNTERS.map(([, label, kind]) => {
      const value = make("dd");
      return { value, root: make("div", { class: `counter ${kind}` }, make("dt", {}, label), value) };
    });
    const flight = make("span");
    const flightBar = bar();
    const times = ["p50", "p90", "p99"].map((name) => {
      const value = make("dd");
      return { value, root: make("div", {}, make("dt", {}, name), value) };
    });
    const why = make("ul", { class: "why", role: "list" });
    const standingLine = make("p", { class: "circuit" }, service, make("span", {}, make("span", { class: "what" }, "circuit "), state));
    face.append(
      standingLine,
      make("div", { class: "pulse" }, disc, curve.root,
        make("p", { class: "errors" }, errors, make("span", {}, "errors")),
        make("p", { class: "rate" }, rate)),
      make("dl", { class: "counters" }, ...counters.map((one) => one.root)),
      make("div", { class: "under" }, make("p", { class: "flight" }, flight, flightBar.root),
        make("dl", { class: "times" }, ...times.map((one) => one.root))),
      why,
    );
    return { disc, curve, errors, rate, state, standingLine, counters, flight, flightBar, times, why };
  }

  function set(row, view) {
    newest = row;
    parts ??= build();
    mark(face, "data-level", row.level);
    level.set(row.level);
    badge(modes, row);
    say(parts.state, circuit(row));
    mark(parts.standingLine, "data-level", standing(row));
    parts.curve.set(row.spark, row.bad, view.point_s);
    size(parts.disc, row.rate_per_s);
    say(parts.errors, share(row.error_share));
    mark(parts.errors, "data-level", errorLevel(row));
    say(parts.rate, perSecond(row));
    COUNTERS.forEach(([outcome], index) => {
      const number = row.counts[outcome] ?? 0;
      say(parts.counters[index].value, count(number));
      mark(parts.counters[index].root, "data-none", number ? null : "yes");
    });
    say(parts.flight, row.limit === null ? `${count(row.in_flight)} in flight` : `${count(row.in_flight)} of ${count(row.limit)} in flight`);
    parts.flightBar.set(row.in_flight, row.limit);
    [row.p50_s, row.p90_s, row.p99_s].forEach((seconds, index) => say(parts.times[index].value, time(seconds)));
    reasons(parts.why, row.fallbacks ? [...row.why, `${count(row.fallbacks)} fallbacks served`] : row.why);
  }
  return { face, set };
}

// The area of the disc grows with traffic, by powers of ten.
function size(disc, rate) {
  const part = Math.max(0.12, Math.min(1, Math.log10((rate || 0) + 1) / 3.5));
  const drawn = part.toFixed(2);
  if (disc.style.getPropertyValue("--size") !== drawn) disc.style.setProperty("--size", drawn);
}

function badge(element, row) {
  const special = inModes(row.modes, row.processes);
  say(element, special);
  element.hidden = !special;
}

function reasons(list, lines) {
  const shown = lines.length > REASONS ? [...lines.slice(0, REASONS - 1), `and ${lines.length - REASONS + 1} more`] : lines;
  while (list.children.length > shown.length) list.lastChild.remove();
  while (list.children.length < shown.length) list.append(make("li"));
  shown.forEach((line, index) => {
    say(list.children[index], line);
    mark(list.children[index], "title", index === REASONS - 1 ? lines.slice(index).join("\n") : line);
  });
}

/** One line. If there is trouble it says so in the place of the curve, so that nothing moves. */
export function line(first) {
  let newest = first;
  const level = sign(first.level);
  const { id, heading } = named(first, level);
  const modes = make("span", { class: "badge" });
  heading.append(modes, make("span", { class: "service-name" }, first.service ?? ""));
  const face = make("article", { class: "line", tabindex: "-1", "aria-labelledby": id }, heading);
  let parts = null;

  function build() {
    const curve = sparkline("Calls");
    const why = make("span", { class: "why" });
    const [rate, errors, slow] = [make("span"), make("span"), make("span")];
    const heard = (word) => make("span", { class: "spoken" }, word);
    face.append(curve.root, why, make("span", { class: "number" }, rate, heard(" calls per second,")),
      make("span", { class: "number" }, errors, heard(" errors,")),
      make("span", { class: "number" }, heard("p99 "), slow), tuneButton(first, () => newest));
    return { curve, why, rate, errors, slow };
  }

  function set(row, view) {
    newest = row;
    parts ??= build();
    mark(face, "data-level", row.level);
    level.set(row.level);
    badge(modes, row);
    const isFine = row.level === "ok" && standing(row) === "ok";
    const words = isFine ? "" : row.why.join(" · ") || `circuit ${circuit(row)}`;
    parts.why.hidden = !words;
    parts.curve.root.toggleAttribute("hidden", Boolean(words));
    say(parts.why, words);
    mark(parts.why, "title", words);
    if (!words) parts.curve.set(row.spark, row.bad, view.point_s);
    say(parts.rate, perSecond(row));
    say(parts.errors, share(row.error_share));
    mark(parts.errors, "data-level", errorLevel(row));
    say(parts.slow, time(row.p99_s));
  }
  return { face, set };
}
