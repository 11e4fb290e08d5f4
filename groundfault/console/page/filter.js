// Which commands are shown, in which order and how densely; kept in the address, so that a link shows the same.
import { count, make, mark, say } from "./dom.js";

export const SORTS = { trouble: "trouble", errors: "error share", volume: "volume", p99: "p99", name: "name" };
const FORMS = { auto: "as fits", tiles: "tiles", lines: "lines" };
const USUAL = { q: "", only: "", service: "", sort: "trouble", form: "auto" };
const CHIPS = 8;

export const state = { ...USUAL };
let changed = () => {};

const field = make("input", { type: "search", id: "q", placeholder: "Filter  /", "aria-label": "Filter by service, resource or command", autocomplete: "off", spellcheck: "false", maxlength: "200" });
const troubled = make("button", { type: "button", class: "chip", "aria-pressed": "false" }, "Troubled");
const chips = make("span", { class: "chips" });
const services = make("select", { "aria-label": "Service" });
const sorts = choices("Sort", SORTS, "sort");
const forms = choices("Show", FORMS, "form");
const found = make("span", { class: "found" });
export const help = make("button", { type: "button", class: "chip", "aria-label": "Keys", title: "Keys: ?" }, "?");
const form = make("form", { class: "filter", role: "search", "aria-label": "Commands" }, field, troubled, chips, services, found, sorts.root, forms.root, help);
let names = null;

function choices(label, values, name) {
  const select = make("select", {}, ...Object.entries(values).map(([value, text]) => make("option", { value }, text)));
  select.addEventListener("change", () => put({ [name]: select.value }));
  return { select, root: make("label", {}, `${label} `, select) };
}

/** Put the controls after ``place``; ``then()`` is called when anything was chosen. */
export function start(place, then) {
  changed = then;
  place.after(form);
  form.addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("input", () => put({ q: field.value }));
  troubled.addEventListener("click", () => put({ only: state.only ? "" : "trouble" }));
  services.addEventListener("change", () => put({ service: services.value }));
  window.addEventListener("hashchange", () => {
    recall();
    changed();
  });
  recall();
}

function recall() {
  if (location.hash && !location.hash.includes("=")) return; // a place on the page, no filter
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(USUAL)) state[name] = kept.get(name) ?? USUAL[name];
  if (!(state.sort in SORTS)) state.sort = USUAL.sort;
  if (!(state.form in FORMS)) state.form = USUAL.form;
  reflect();
}

/** Choose: put({q: "saber"}). */
export function put(chosen) {
  Object.assign(state, chosen);
  const kept = new URLSearchParams();
  for (const [name, usual] of Object.entries(USUAL)) if (state[name] !== usual) kept.set(name, state[name]);
  history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname + location.search);
  reflect();
  changed();
}

/** The next way to sort. */
export function turn() {
  const all = Object.keys(SORTS);
  put({ sort: all[(all.indexOf(state.sort) + 1) % all.length] });
}

export const clear = () => put({ q: "", only: "", service: "" });
export const focus = () => field.select() ?? field.focus();

function reflect() {
  if (field.value !== state.q) field.value = state.q;
  mark(troubled, "aria-pressed", String(Boolean(state.only)));
  for (const chip of chips.children) mark(chip, "aria-pressed", String(chip.value === state.service));
  services.value = state.service;
  sorts.select.value = state.sort;
  forms.select.value = state.form;
}

/** Offer the services there are; say how many commands are shown, and how many are in trouble. */
export function offer(view, shown) {
  const there = [...new Set(view.commands.map((row) => row.service ?? ""))].filter(Boolean).sort();
  if (state.service && !there.includes(state.service)) there.push(state.service);
  if (JSON.stringify(there) !== names) {
    names = JSON.stringify(there);
    const few = there.length <= CHIPS;
    chips.hidden = !few || there.length < 2;
    services.hidden = few;
    services.replaceChildren(make("option", { value: "" }, "every service"), ...there.map((name) => make("option", { value: name }, name)));
    chips.replaceChildren(...(few ? there.map(chip) : []));
    reflect();
  }
  const bad = view.commands.filter((row) => row.level !== "ok").length;
  say(troubled, `Troubled ${count(bad)}`);
  const all = view.commands.length;
  say(found, shown === all ? "" : `${shown} of ${all} shown`);
}

function chip(name) {
  const button = make("button", { type: "button", class: "chip", value: name, title: name, "aria-pressed": "false" }, name);
  button.addEventListener("click", () => put({ service: state.service === name ? "" : name }));
  return button;
}

/** Whether the filter lets a command through. Every word of the text must be in one of its names. */
export function passes(row) {
  if (state.only && row.level === "ok") return false;
  if (state.service && row.service !== state.service) return false;
  if (!state.q) return true;
  const names = `${row.service ?? ""} ${row.resource} / ${row.command} ${row.resource}/${row.command}`.toLowerCase();
  return state.q.toLowerCase().split(/\s+/).every((word) => names.includes(word));
}

const byName = (one, other) => (one.id < other.id ? -1 : one.id > other.id ? 1 : 0);
const most = (name) => (one, other) => (other[name] ?? -1) - (one[name] ?? -1) || byName(one, other);
const RANK = { bad: 2, warn: 1, ok: 0 };
export const byTrouble = (one, other) =>
  (RANK[other.level] ?? 0) - (RANK[one.level] ?? 0) || (other.trouble || 0) - (one.trouble || 0) || byName(one, other);
const ORDERS = {
  trouble: byTrouble, errors: most("error_share"), volume: most("rate_per_s"), p99: most("p99_s"),
  name: (one, other) => one.resource.localeCompare(other.resource) || one.command.localeCompare(other.command) || byName(one, other),
};

export const order = () => ORDERS[state.sort];
