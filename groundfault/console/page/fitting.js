// What fits a row, a setting or a change in the dialog: titles, inputs, scopes, and whom it touches.
import { make, time } from "./dom.js";
import { many, processes, state } from "./tuning.js";

const NAME = /^[a-z0-9._-]{1,64}$/;

export function title({ row, entry, rollback }) {
  if (rollback !== undefined) return `Roll back to version ${rollback}`;
  if (entry) return `Change ${entry.name} at ${entry.scope}`;
  if (!row) return "Set something";
  return row.resource ? `Tune ${row.service ?? "(no name)"}: ${row.resource}/${row.command}` : `Tune ${row.service}`;
}

/** What is in force, as one process reports it. */
export function inForce(row) {
  const pairs = row.settings ? Object.entries(row.settings) : [["server.deadline_s", row.deadline_s], ["threshold_s (found by itself)", row.threshold_s]];
  const modes = Object.entries(row.modes ?? {}).map(([mode, number]) => [`mode ${mode}`, `in ${processes(number)}`]);
  const known = [...pairs, ...modes].filter(([, value]) => value !== null && value !== undefined);
  if (!known.length) return [];
  const items = known.map(([name, value]) => {
    const shown = name.includes("_s") && !name.includes("_per_s") && typeof value === "number" ? time(value) : String(value);
    return make("div", {}, make("dt", {}, name), make("dd", {}, shown));
  });
  return [make("h3", {}, "In force now"), make("dl", {}, ...items)];
}

/** The scopes that are usual for a row. Names that can be in no scope give none. */
export function usual(row) {
  if (!row) return [["*", "the whole fleet"]];
  const { service, resource, command } = row;
  const found = resource
    ? [
        [[service, resource, command], "this command"],
        [["*", resource, command], "this command, whoever calls it"],
        [["*", resource], "all of this resource, whoever calls it"],
      ]
    : [[[service], "this service"], [["*"], "the whole fleet"]];
  return found.filter(([parts]) => parts.every((part) => part === "*" || NAME.test(part ?? ""))).map(([parts, text]) => [parts.join("/"), text]);
}

/** An input that fits a setting, filled with a value. */
export function input(about, value) {
  if (about.kind === "flag") {
    const box = make("input", { type: "checkbox" });
    box.checked = value === true;
    return box;
  }
  if (about.kind === "choice") {
    const choice = make("select", {}, ...about.choices.map((each) => make("option", { value: each }, each)));
    choice.value = about.choices.includes(value) ? value : about.choices[0];
    return choice;
  }
  if (about.kind === "json") {
    const text = make("textarea", { rows: 3, spellcheck: "false", placeholder: "JSON" });
    text.value = value === "" ? "" : JSON.stringify(value);
    return text;
  }
  const made = make("input", { type: "number", min: about.low ?? 0, max: about.high ?? null, step: about.kind === "whole" ? 1 : "any" });
  made.value = typeof value === "number" ? value : "";
  return made;
}

function matches(scope, place) {
  const parts = scope.split("/");
  const like = (part) => new RegExp(`^${part.replace(/\./g, "\\.").replace(/\*/g, ".*").replace(/\?/g, ".")}$`, "s");
  return parts.length <= place.length && parts.every((part, at) => like(part).test(place[at] ?? ""));
}

/** Whom of those on the page a change is for. */
export function touches(paths) {
  const { view } = state;
  const commands = new Set();
  const servers = new Set();
  const services = new Set();
  for (const path of paths) {
    const [scope, name] = path.split(":");
    if (name.startsWith("server.")) {
      for (const row of view.servers) if (matches(scope, [row.service])) servers.add(row.service);
    } else {
      for (const row of view.commands) {
        if (!matches(scope, [row.service, row.resource, row.command])) continue;
        commands.add(row.id);
        services.add(row.service);
      }
    }
  }
  const said = [];
  if (commands.size) said.push(`${many(commands.size, "command")} in ${many(services.size, "service")}`);
  if (servers.size) said.push(`the server half of ${many(servers.size, "service")}`);
  const more = view.hidden ? ` ${many(view.hidden, "command")} that the page does not show may be among them, too.` : "";
  return said.length ? `Touches ${said.join(" and ")}.${more}` : `Touches nothing that reports here.${more}`;
}
