// What is known, and from whom: what is missing, and how old the rest is.
import { count, make, say, SIGNS, time } from "./dom.js";

const section = document.getElementById("about");
const notes = make("ul", { class: "notes", role: "list" });
const tables = make("div", { class: "tables" });
const made = make("p", { class: "soft" });
section.append(notes, tables, made);
let drawn = "";

/** Show a view. Drawn anew only where something besides ages of a few seconds differs. */
export function show(view) {
  const lines = [
    ...view.unknown.map((line) => [SIGNS.warn, line]),
    ...Object.entries(view.internal_errors).map(([where, number]) => [SIGNS.warn, `${count(number)} internal errors in ${where}: the service went on without; its log says more`]),
  ];
  if (!lines.length) lines.push([SIGNS.ok, "Every report could be read; nothing is known to be missing."]);
  const groups = [hosts(view), processes(view)].filter(Boolean);
  const now = JSON.stringify([lines, groups]);
  if (now !== drawn) {
    drawn = now;
    notes.replaceChildren(...lines.map(([sign, line]) => make("li", { "data-level": sign === SIGNS.ok ? "ok" : "warn" }, make("span", { class: "sign", "aria-hidden": "true" }, sign), ` ${line}`)));
    tables.replaceChildren(...groups.map(table));
  }
  const errorsOf = `format ${view.format}, made every ${time(view.interval_s)} by ${view.kind === "hub" ? "the hub" : "a process"} on ${view.host || "an unnamed host"}`;
  say(made, `GroundFault ${view.release || "of an unknown release"}; ${errorsOf}; counts are of the last ${time(view.window_s)}.`);
}

// Whole seconds, and tens of them: what is older only by a blink is not drawn anew.
const old = (seconds) => (typeof seconds !== "number" ? "–" : seconds < 3 ? "now" : seconds < 30 ? `${Math.round(seconds / 5) * 5} s` : time(Math.round(seconds / 10) * 10));

function hosts(view) {
  if (!view.hosts.length) return null;
  return {
    title: "Hosts", names: ["host", "state", "heard", "clock", "release", "processes", "services"],
    rows: view.hosts.map((host) => [host.host, `${host.state === "live" ? SIGNS.ok : SIGNS.warn} ${host.state}${host.why ? `: ${host.why}` : ""}`, old(host.age_s),
      Math.abs(host.skew_s ?? 0) < 1 ? "agrees" : `${time(Math.abs(host.skew_s))} ${host.skew_s > 0 ? "ahead" : "behind"}`,
      host.release ?? "–", count(host.processes), (host.services ?? []).join(", ")]),
  };
}

function processes(view) {
  if (!view.processes.length) return null;
  const stale = view.processes.filter((one) => one.stale);
  const groups = new Map();
  for (const one of view.processes) {
    const name = [one.host, one.service].filter(Boolean).join(" · ") || "(no name)";
    const group = groups.get(name) ?? { number: 0, stale: [], age: 0 };
    group.number += 1;
    group.age = Math.max(group.age, one.age_s ?? 0);
    if (one.stale) group.stale.push(one.pid);
    groups.set(name, group);
  }
  return {
    title: `Processes${stale.length ? `, ${stale.length} stale` : ""}`, names: ["where", "processes", "oldest report", "stale"],
    rows: [...groups].map(([name, { number, stale, age }]) => [name, count(number), old(age), stale.length ? `${SIGNS.warn} pid ${stale.join(", ")}` : "none"]),
  };
}

function table({ title, names, rows }) {
  const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
  const body = rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", { title: String(cell) }, String(cell)))));
  return make("div", { class: "table", tabindex: "0", role: "region", "aria-label": title },
    make("table", {}, make("caption", {}, title), make("thead", {}, head), make("tbody", {}, ...body)));
}
