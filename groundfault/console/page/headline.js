// The strip at the top: how bad it is, in words, and the seven numbers that say why.
import { bar, count, make, mark, say, share, sign, sparkline, time, whole, SIGNS, WORDS } from "./dom.js";
import { ageOf, clock } from "./stale.js";

const header = document.getElementById("headline");
const spoken = document.getElementById("spoken");
const icon = document.querySelector("link[rel=icon]");

const level = sign();
const words = make("span", { class: "words" });
const title = make("strong");
const place = make("span");
const age = make("span", { class: "age" });
const line = make("div", { class: "verdict" }, make("h1", {}, level.root, words), make("p", { class: "from" }, title, place, age));
const strip = make("dl", { class: "strip" });
const cells = {};
let before = null;
let shown = null;

function cell(name, label, ...more) {
  const value = make("b");
  const note = make("span", { class: "note" });
  const root = make("div", { class: `cell ${name}` }, make("dt", {}, label), make("dd", {}, make("span", { class: "figure" }, value, ...more), note));
  strip.append(root);
  cells[name] = { root, value, note };
}

const curve = sparkline("Traffic");
const wait = bar();
cell("goodput", "Goodput", curve.root);
cell("shed", "Shed");
cell("wait", "Queue wait p99", wait.root);
cell("open", "Open circuits");
cell("full", "Saturated");
cell("version", "Settings");
cell("fleet", "Processes");
header.prepend(line, strip);

function set(name, how, value, note, title = null) {
  const { root, value: element, note: beside } = cells[name];
  mark(root, "data-level", how === "ok" ? null : how);
  mark(root, "title", title);
  say(element, value);
  say(beside, note);
}

const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** Show a view. */
export function show(view) {
  const now = view.headline;
  shown = view;
  mark(header, "data-level", now.level);
  level.set(now.level);
  say(words, now.words || WORDS[now.level] || "");
  mark(words, "title", now.words);
  say(title, view.title);
  say(place, [view.kind === "hub" ? `hub ${view.host}` : view.host, view.release].filter(Boolean).join(" · "));
  strip.hidden = false;

  curve.set(now.spark, now.bad, view.point_s);
  set("goodput", "ok", `${count(now.goodput_per_s)}/s`, `of ${count(now.rate_per_s)}/s`);
  set("shed", now.shed_share >= 0.1 ? "bad" : now.shed_share >= 0.01 ? "warn" : "ok", share(now.shed_share), now.shed_share > 0 ? "of the requests" : "nothing");
  const over = now.wait_p99_s > now.threshold_s && now.threshold_s !== null;
  wait.set(now.wait_p99_s, now.threshold_s);
  set("wait", over ? "warn" : "ok", time(now.wait_p99_s), now.threshold_s === null ? "no threshold known" : `${over ? "over" : "of"} ${time(now.threshold_s)}`,
    "How long requests had waited when they were looked at; beyond the threshold they are refused");
  set("open", now.open_circuits ? "bad" : "ok", count(now.open_circuits), `of ${plural(now.commands, "command")}`);
  set("full", now.saturated ? "warn" : "ok", count(now.saturated), now.saturated === 1 ? "resource" : "resources", "Resources whose limit is reached, or whose callee only refuses");
  set("version", now.behind ? "warn" : "ok", now.version ?? "–", version(now), now.version);
  const hosts = now.hosts > 1 ? ` on ${plural(now.hosts, "host")}` : "";
  const missing = view.unknown.length + Object.keys(view.internal_errors).length;
  const reports = now.stale ? `${count(now.stale)} stale` : missing ? `${count(missing)} unknown, see below` : "all report";
  set("fleet", now.stale || missing ? "warn" : "ok", count(now.processes), reports + hosts, view.unknown.join("\n") || null);

  const open = now.open_circuits ? `${now.open_circuits} open · ` : "";
  const heading = `${SIGNS[now.level] ?? "?"} ${open}${view.title || "GroundFault"}`;
  if (document.title !== heading) document.title = heading;
  if (before !== now.level) {
    const file = now.level in SIGNS && now.level !== "ok" ? `icon-${now.level}` : "icon";
    mark(icon, "href", `page/${file}.svg`);
    if (before !== null) say(spoken, `Now ${WORDS[now.level] ?? now.level}: ${now.words}`);
    before = now.level;
  }
}

function version(now) {
  if (now.behind) return `${count(now.behind)} behind for ${time(now.lag_s)}`;
  return now.version === null ? "no store" : "all run it";
}

/** Say how old the view is: called once a second, and with each view. */
export function aged(state) {
  if (shown === null) return;
  mark(age, "title", `made at ${clock(shown.made_at)}, two-minute curves, counts of the last ${time(shown.window_s)}`);
  say(age, `${clock(shown.made_at)} · ${whole(ageOf(state))} old`);
}
