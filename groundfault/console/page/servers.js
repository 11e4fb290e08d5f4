// One row for each service's server half: what it admits, what it refuses and why, and how long requests wait.
import { bar, count, make, mark, say, share, sign, sparkline, time } from "./dom.js";
import * as tuning from "./tuning.js";

const section = document.getElementById("servers");
const list = make("ul", { class: "services", role: "list" });
const none = make("p", { class: "soft" }, "No service here is guarded by a shedder; what is shown are calls to others.");
section.append(list, none);
const known = new Map();

/** Show a view. */
export function show(view) {
  none.hidden = view.servers.length > 0;
  const here = new Set();
  view.servers.forEach((row, index) => {
    const name = row.service ?? "";
    here.add(name);
    if (!known.has(name)) known.set(name, made());
    const service = known.get(name);
    service.set(row, view);
    if (list.children[index] !== service.root) list.insertBefore(service.root, list.children[index] ?? null);
  });
  for (const [name, service] of known) {
    if (here.has(name)) continue;
    service.root.remove();
    known.delete(name);
  }
}

function fact(label, ...more) {
  const value = make("b");
  const note = make("span", { class: "note" });
  const root = make("div", { class: "fact" }, make("dt", {}, label), make("dd", {}, value, ...more, note));
  return {
    root,
    set(text, beside = "", level = null) {
      say(value, text);
      say(note, beside);
      mark(root, "data-level", level);
    },
  };
}

function made() {
  const level = sign();
  const name = make("span", { class: "name" });
  const modes = make("span", { class: "badge" });
  const curve = sparkline("Requests");
  const [wait, queue] = [bar(), bar()];
  const facts = {
    rate: fact("Requests"), good: fact("Goodput"), shed: fact("Shed"), wait: fact("Wait p50 · p99", wait.root),
    flight: fact("In flight"), queue: fact("Accept queue", queue.root),
  };
  const tune = make("button", { type: "button", class: "tune" }, "Tune");
  const why = make("p", { class: "why" });
  const head = make("div", { class: "who" }, make("h3", {}, level.root, name), modes, tune);
  const root = make("li", { class: "service" }, head, curve.root,
    make("dl", { class: "facts" }, ...Object.values(facts).map((one) => one.root)), why);
  let newest = null;
  tune.addEventListener("click", () => tuning.open(newest));

  function set(row, view) {
    newest = row;
    mark(root, "data-level", row.level);
    level.set(row.level);
    say(name, row.service || "(no name)");
    mark(name, "title", row.service);
    mark(tune, "aria-label", `Tune ${row.service}`);
    const special = inModes(row.modes, row.processes);
    say(modes, special);
    modes.hidden = !special;
    curve.set(row.spark, row.bad, view.point_s);
    facts.rate.set(`${count(row.rate_per_s)}/s`);
    mark(facts.rate.root, "title", `in ${count(row.processes)} ${row.processes === 1 ? "process" : "processes"}`);
    facts.good.set(`${count(row.goodput_per_s)}/s`, row.abandoned ? `${count(row.abandoned)} abandoned` : "");
    facts.shed.set(share(row.shed_share), row.shed_share > 0 ? byWhat(row) : "", row.shed_share > 0.01 ? row.level : null);
    mark(facts.shed.root, "title", row.shed_share > 0 ? byWhat(row) : null);
    const over = row.threshold_s !== null && row.wait_p99_s > row.threshold_s;
    wait.set(row.wait_p99_s, row.threshold_s);
    mark(facts.wait.root, "title", `half waited at most ${time(row.wait_p50_s)}, 99 % at most ${time(row.wait_p99_s)}; refused beyond ${time(row.threshold_s)}; deadline ${time(row.deadline_s)}`);
    facts.wait.set(`${time(row.wait_p50_s)} · ${time(row.wait_p99_s)}`,
      `${over ? "over" : "of"} ${time(row.threshold_s)}, deadline ${time(row.deadline_s)}`, over ? "warn" : null);
    facts.flight.set(count(row.in_flight), "");
    queue.set(row.backlog, row.backlog_limit);
    facts.queue.set(row.backlog === null ? "–" : count(row.backlog), row.backlog === null ? "not seen" : `of ${count(row.backlog_limit)}`,
      row.backlog !== null && row.backlog >= row.backlog_limit ? "bad" : null);
    const words = [...row.why];
    if (row.stepped_aside) words.push(`stepped aside in ${row.stepped_aside} of ${row.processes} processes`);
    say(why, words.join(" · "));
    why.hidden = !words.length;
  }
  return { root, set };
}

/** {"shadow": 3} -> "shadow in 3 of 8". */
export function inModes(modes, processes) {
  return Object.entries(modes)
    .map(([mode, number]) => (number >= processes ? mode : `${mode} in ${number} of ${processes}`).replaceAll("_", " "))
    .join(", ");
}

// The shares of what was refused: by reason, then by how critical it was.
function byWhat(row) {
  const all = Object.values(row.counts).reduce((sum, number) => sum + number, 0) || 1;
  const reasons = Object.entries(row.counts).filter(([name, number]) => name !== "admitted" && number > 0);
  const said = reasons.sort((one, other) => other[1] - one[1]).map(([name, number]) => `${name} ${share(number / all)}`);
  const critical = Object.entries(row.criticalities).map(([name, numbers]) => {
    const refused = numbers.shed ?? Object.entries(numbers).reduce((sum, [what, number]) => (what === "admitted" ? sum : sum + number), 0);
    return [name, refused / (refused + (numbers.admitted ?? 0) || 1)];
  });
  const whose = critical.filter(([, part]) => part > 0).map(([name, part]) => `${share(part)} of ${name}`);
  return [said.join(", "), whose.join(", ")].filter(Boolean).join(" · ");
}
