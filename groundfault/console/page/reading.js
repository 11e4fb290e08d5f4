// Reads a view of whatever release: what an older one leaves out is filled in, so that nothing has to ask again.

export const FORMAT = 1;

const HEADLINE = {
  level: "ok", words: "", rate_per_s: null, goodput_per_s: null, shed_share: null, wait_p99_s: null, threshold_s: null,
  open_circuits: 0, saturated: 0, commands: 0, processes: 0, stale: 0, hosts: 0, behind: 0, lag_s: 0, version: null,
  spark: [], bad: [],
};
const SERVER = {
  service: "", level: "ok", why: [], rate_per_s: null, goodput_per_s: null, counts: {}, criticalities: {},
  shed_share: null, abandoned: 0, wait_p50_s: null, wait_p99_s: null, threshold_s: null, deadline_s: null,
  in_flight: null, shedding: 0, stepped_aside: 0, modes: {}, signals: {}, backlog: null, backlog_limit: null,
  processes: 0, spark: [], bad: [],
};
const COMMAND = {
  service: null, resource: "", command: "", level: "ok", why: [], trouble: 0, rate_per_s: null, counts: {},
  error_share: null, fallbacks: 0, p50_s: null, p90_s: null, p99_s: null, in_flight: null, limit: null, state: "closed",
  states: {}, modes: {}, admitted_share: 1, saturated: 0, unhealthy: 0, processes: 0, settings: {}, spark: [], bad: [],
};
const VIEW = {
  format: FORMAT, release: "", kind: "host", title: "", host: "", made_at: null, sequence: 0, interval_s: 1,
  window_s: 10, point_s: 2, hidden: 0, internal_errors: {},
};
const LISTS = ["timeline", "stores", "processes", "hosts", "unknown"];

const list = (value) => (Array.isArray(value) ? value : []);

// null is kept where the usual value is null or a number: "nobody knows". Where a list is wanted, one there is.
function filled(usual, given) {
  const full = { ...usual, ...given };
  for (const name in usual) {
    const wanted = usual[name];
    if (wanted !== null && typeof wanted === "object" && (full[name] === null || typeof full[name] !== "object"))
      full[name] = wanted;
  }
  return full;
}

export const isNewer = (view) => typeof view?.format === "number" && view.format !== FORMAT;

/** Return the view with every field there is. */
export function read(given) {
  const view = filled(VIEW, given);
  view.headline = filled(HEADLINE, view.headline);
  view.servers = list(view.servers).map((row) => filled(SERVER, row));
  view.commands = list(view.commands).map((row) => {
    const full = filled(COMMAND, row);
    for (const name of ["resource", "command"]) full[name] = String(full[name] ?? "");
    full.id ??= `${full.service}|${full.resource}|${full.command}`;
    return full;
  });
  for (const name of LISTS) view[name] = list(view[name]);
  const map = view.map ?? {};
  view.map = { ...map, nodes: list(map.nodes), edges: list(map.edges), notes: list(map.notes) };
  return view;
}
