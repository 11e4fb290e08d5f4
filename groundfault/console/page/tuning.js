// Live settings: what is set, which processes run it, who changed it and why; and the way to changing it.
// settings.json is fetched when something may have changed, never each second. The dialog is fetched when it is opened.
import { make, say, time } from "./dom.js";

/** What the list and the dialog share. `known`: settings.json, null if there is none, and `trouble` says why. */
export const state = { view: null, known: null, trouble: "", dialog: null };

let parts = null;
let versions = null;
let asking = null;
let again = false;
let retry = 0;
let ends = [];

export function show(view) {
  state.view = view;
  const seen = JSON.stringify(view.stores.map((row) => [row.store, row.newest, Object.keys(row.versions).sort()]));
  parts ??= built();
  drawStores(view.stores);
  for (const draw of ends) draw();
  if (seen !== versions) {
    versions = seen;
    look();
  }
  state.dialog?.follow();
}

/** Open the panel for one command (a CommandRow) or one service (a ServerRow): called by their tiles. */
export function open(row) {
  return begin({ row });
}

async function begin(about) {
  if (state.dialog) return;
  const from = document.activeElement;
  // A store that hangs must not keep the dialog closed: what is known will do, and a conflict would tell.
  const looked = look();
  await (state.known ? Promise.race([looked, new Promise((done) => setTimeout(done, 1500))]) : looked);
  const { Dialog } = await import("./adjusting.js");
  if (!state.dialog) new Dialog(about, from);
}

/** Fetch settings.json; who asks meanwhile has it fetched once more, and waits for that. */
export function look() {
  again = true;
  asking ??= fetched();
  return asking;
}

async function fetched() {
  clearTimeout(retry);
  while (again) {
    again = false;
    try {
      const answer = await fetch("settings.json", { cache: "no-store", signal: AbortSignal.timeout(10000) });
      const said = await answer.text();
      if (!answer.ok) throw Object.assign(new Error(lines(said).join("; ")), { status: answer.status });
      const known = JSON.parse(said);
      state.known = known.store === null ? null : known;
      state.trouble = state.known ? "" : lines(said).join("; ");
    } catch (error) {
      state.trouble = error.message;
      if (error.status === 404) state.known = null;
      else retry = setTimeout(look, 5000);
    }
    draw();
  }
  asking = null;
}

/** The lines of an answer that is a refusal: JSON with `errors`, or a line of text. */
export function lines(said) {
  try {
    return JSON.parse(said).errors ?? [said];
  } catch {
    return [said.trim().slice(0, 300) || "no answer"];
  }
}

/** A button that does something. */
export function button(text, work, attributes = {}) {
  const made = make("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", work);
  return made;
}

/** Who brought what this line of the timeline tells of into force, and why: from the store's history, as far as known. */
export const author = (what) => state.known?.history.find(({ version }) => what === `version ${version} in force`);

/** Whether there is a store, so that there is something to tune. */
export const ready = () => state.known !== null;

/** 1 -> "1 process", 2 -> "2 processes". */
export const many = (number, one, more = `${one}s`) => `${number} ${number === 1 ? one : more}`;

export const processes = (number) => many(number, "process", "processes");

/** A value as it is written in a document. */
export const written = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** How a change reads: minus and plus beside red and green. */
export function changeLines(path, old, now) {
  const item = make("li", {}, make("code", {}, path));
  if (old !== null) item.append(make("span", { class: "minus" }, `− ${old}`));
  if (now !== null) item.append(make("span", { class: "plus" }, `+ ${now}`));
  return item;
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });

function when(at) {
  const date = new Date(at);
  return make("time", { datetime: at }, Number.isNaN(+date) ? at : moment.format(date));
}

// --- the section -----------------------------------------------------------------------------------------------------

function built() {
  const section = document.getElementById("settings");
  const made = {
    stores: make("ul", { class: "stores" }),
    trouble: make("p", { class: "trouble", role: "status" }),
    list: make("div", { class: "scrolls", role: "region", "aria-label": "What is set", tabindex: "0" }),
    foot: make("p", { class: "foot" }),
    past: make("details", { class: "past" }, make("summary")),
  };
  section.append(...Object.values(made));
  return made;
}

function drawStores(rows) {
  const texts = rows.length ? rows.map(words) : ["✓ No process reports that it reads live settings."];
  while (parts.stores.children.length > texts.length) parts.stores.lastChild.remove();
  texts.forEach((text, at) => {
    const item = parts.stores.children[at] ?? parts.stores.appendChild(make("li"));
    item.className = text.startsWith("▲") ? "warn" : "";
    say(item, text);
  });
}

function words(row) {
  const all = Object.values(row.versions).reduce((sum, each) => sum + each, 0);
  const said = [];
  if (row.newest === null) said.push("nobody has read it yet");
  else said.push(`version ${row.newest} is in force in ${row.versions[row.newest] ?? 0} of ${processes(all)}`);
  if (row.behind) {
    const older = Object.entries(row.versions).filter(([version]) => version !== row.newest);
    const which = older.map(([version, number]) => `${version === "declared" ? "what the code declares" : `version ${version}`} in ${number}`).join(", ");
    said.push(`${row.behind} behind for ${time(row.lag_s)}${which ? ` (${which})` : ""}`);
  }
  if (row.unreachable) said.push(`${processes(row.unreachable)} cannot reach it and keep what they have`);
  if (row.rejected) said.push(`${processes(row.rejected)} reject the newest version and keep the one before`);
  return `${row.behind || row.unreachable || row.rejected ? "▲" : "✓"} ${row.store}: ${said.join("; ")}`;
}

function draw() {
  if (!parts) return;
  const { known } = state;
  const wrong = [state.trouble && `Settings: ${state.trouble}`, ...(known?.problems ?? []).map((each) => `Processes reject this: ${each}`)];
  say(parts.trouble, wrong.filter(Boolean).join("\n"));
  parts.trouble.hidden = !parts.trouble.textContent;
  for (const each of [parts.list, parts.foot, parts.past]) each.hidden = !known;
  if (!known) return;
  const from = parts.list.contains(document.activeElement) || parts.past.contains(document.activeElement);
  drawDocument(known);
  parts.foot.replaceChildren(
    known.steers
      ? button("Set something…", () => begin({}))
      : "This console is read-only. To steer from here, start it with a token: GROUNDFAULT_CONSOLE_TOKEN.",
  );
  drawPast(known);
  if (from && !state.dialog) parts.list.focus();
}

/** The entries of a document, flat. */
export function entries(document) {
  return Object.entries(document).flatMap(([scope, settings]) =>
    Object.entries(settings).map(([name, value]) => {
      const ending = value !== null && typeof value === "object" && "until" in value;
      return { scope, name, then: null, until: null, ...(ending ? value : { value }) };
    }),
  );
}

function drawDocument(known) {
  const rows = entries(known.document);
  ends = [];
  if (!rows.length) {
    parts.list.replaceChildren(make("p", {}, "Nothing is set: all is as the code declares it."));
    return;
  }
  const titles = ["Scope", "Setting", "Value", "Until"].map((text) => make("th", { scope: "col" }, text));
  if (known.steers) titles.push(make("th", { scope: "col" }, make("span", { class: "unseen" }, "Change it")));
  const body = make("tbody", {}, ...rows.map((entry) => documentRow(entry, known.steers)));
  parts.list.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...titles)), body));
}

function documentRow(entry, steers) {
  const until = make("td");
  const row = make(
    "tr",
    {},
    make("td", {}, make("code", {}, entry.scope)),
    make("td", {}, make("code", {}, entry.name)),
    make("td", {}, make("code", {}, written(entry.value))),
    until,
  );
  if (entry.until) {
    const left = make("span");
    const then = entry.then === null ? "" : `, then ${written(entry.then)}`;
    const count = () => {
      const left_s = (new Date(entry.until) - Date.now()) / 1000;
      say(left, left_s > 0 ? ` (${time(left_s)} left)${then}` : ` (over)${then}`);
    };
    count();
    ends.push(count);
    until.append(when(entry.until), left);
  } else until.append("for good");
  if (steers) {
    const name = `Change ${entry.name} at ${entry.scope}`;
    row.append(make("td", {}, button("Change…", () => begin({ entry }), { "aria-label": name })));
  }
  return row;
}

function drawPast(known) {
  const [last] = known.history;
  say(
    parts.past.firstChild,
    last ? `History: ${many(known.history.length, "change")}, the last by ${last.by}: ${last.reason}` : "History: no changes yet",
  );
  const list = make("ol");
  for (const each of known.history) {
    const changes = each.changes.map((one) => {
      const now = one.value === null ? null : written(one.value) + (one.until ? ` until ${one.until}` : "");
      return changeLines(`${one.scope}:${one.name}`, "was" in one ? written(one.was) : null, now);
    });
    const current = each.version === known.version;
    const item = make(
      "li",
      {},
      make("p", {}, make("b", {}, `Version ${each.version}`), current ? " (current) " : " ", when(each.at), ` by ${each.by}: ${each.reason}`),
      make("ul", { class: "changes" }, ...changes),
    );
    if (known.steers && !current) {
      const name = `Roll back to version ${each.version}`;
      item.append(button("Roll back to this…", () => begin({ rollback: each.version }), { "aria-label": name }));
    }
    list.append(item);
  }
  parts.past.replaceChildren(parts.past.firstChild, list);
}
