// The dialog that changes live settings: what is in force, what to change, what that would do, and how far it has got.
import { make, say } from "./dom.js";
import { inForce, input, title, touches, usual } from "./fitting.js";
import { button, changeLines, entries, lines, look, processes, state, written } from "./tuning.js";

const LASTING = [["", "for good"], [600, "10 minutes"], [1800, "30 minutes"], [7200, "2 hours"], ["other", "another time…"]];
const OTHER = "\n"; // no scope is that

// Kept while the page is, and nowhere else.
let token = "";
let who = "";
let number = 0;

export class Dialog {
  /** `about`: {row}, {entry}, {rollback} or nothing. `from`: what gets the focus back. */
  constructor(about, from) {
    this.about = about;
    this.base = state.known?.version ?? "0";
    this.inputs = {};
    this.ready = null;
    this.written = null;
    this.title = make("h2", { id: "tune-title" }, title(about));
    this.errors = make("div", { class: "errors", role: "alert", tabindex: "-1" });
    this.seen = make("div", { class: "preview", "aria-live": "polite", tabindex: "-1" });
    this.form = make("form", { novalidate: "" });
    this.box = make("dialog", { id: "tune", "aria-labelledby": "tune-title" }, this.title, this.form);
    this.box.addEventListener("close", () => this.closed(from));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.preview();
    });
    this.form.addEventListener("input", () => this.check());
    state.dialog = this;
    this.draw();
    document.body.append(this.box);
    this.box.showModal();
  }

  closed(from) {
    this.box.remove();
    state.dialog = null;
    if (from?.isConnected && from !== document.body) from.focus();
    else document.querySelector("#settings .scrolls")?.focus();
    look();
  }

  // --- what it is made of --------------------------------------------------------------------------------------------

  draw() {
    const { known, trouble } = state;
    const { row, rollback } = this.about;
    if (row) this.form.append(...inForce(row));
    const close = button(known?.steers ? "Cancel" : "Close", () => this.box.close());
    if (!known?.steers) {
      const why = known
        ? "This console is read-only. To steer from here, start it with a token: GROUNDFAULT_CONSOLE_TOKEN."
        : trouble || "Settings are not known yet.";
      this.form.append(make("p", {}, why), make("p", { class: "buttons" }, close));
      return;
    }
    if (rollback === undefined) this.drawChange(known);
    else this.form.append(make("p", {}, "Everything is set to what it was under that version, as a new version."));
    this.field("reason", "Reason", make("input", { required: "", maxlength: 500, autocomplete: "off" }), "for those who come after");
    this.field("by", "Who", make("input", { maxlength: 200, autocomplete: "off", value: who }), "empty: the console's host");
    const secret = make("input", { type: "password", required: "", autocomplete: "off", value: token, spellcheck: "false" });
    this.field("token", "Token", secret, "forgotten when the page is closed");
    this.apply = button("Apply", () => this.change(), { class: "apply", disabled: "" });
    const show = make("button", { type: "submit" }, "Preview");
    this.form.append(this.errors, this.seen, make("p", { class: "buttons" }, close, show, this.apply));
  }

  drawChange(known) {
    const { row, entry } = this.about;
    const scopes = entry ? [[entry.scope, "as it is set"]] : usual(row);
    const scope = make("select", {}, ...scopes.map(([value, text]) => make("option", { value }, `${value} – ${text}`)));
    scope.append(make("option", { value: OTHER }, "another scope…"));
    this.field("scope", "Where", scope, "");
    const free = make("input", { autocomplete: "off", spellcheck: "false", placeholder: "service/resource/command", maxlength: 194 });
    this.field("free", "Scope", free, "service[/resource[/command]], each a name or a pattern with * and ?");
    const names = Object.keys(known.names);
    const groups = [["Commands", names.filter((each) => !each.startsWith("server."))], ["Server half", names.filter((each) => each.startsWith("server."))]];
    if (row && !row.resource) groups.reverse();
    const options = groups.map(([label, each]) => make("optgroup", { label }, ...each.map((value) => make("option", { value }, value))));
    this.field("name", "Setting", make("select", {}, ...options), "");
    if (entry && known.names[entry.name]) this.inputs.name.control.value = entry.name;
    this.field("unset", "Take it away", make("input", { type: "checkbox" }), "back to what broader scopes or the code say");
    this.field("value", "Value", make("input"), "");
    const lasting = make("select", {}, ...LASTING.map(([value, text]) => make("option", { value }, text)));
    this.field("for_s", "For how long", lasting, "what was set for good comes back afterwards");
    this.field("minutes", "Minutes", make("input", { type: "number", min: 1, step: "any", value: 60 }), "");
    for (const key of ["scope", "free", "name"]) this.inputs[key].control.addEventListener("input", () => this.refill());
    this.refill();
    this.check();
  }

  field(key, label, control, note) {
    const id = `tune-${key}-${++number}`;
    control.id = id;
    const noted = make("p", { class: "note", id: `${id}-note` }, note);
    const error = make("p", { class: "error", id: `${id}-error`, "aria-live": "polite" });
    control.setAttribute("aria-describedby", `${noted.id} ${error.id}`);
    const whole = make("div", { class: `field ${key}` }, make("label", { for: id }, label), control, noted, error);
    this.inputs[key] = { control, noted, error, whole };
    this.form.append(whole);
  }

  /** Make the input fit the setting that is chosen, and show what is there now. */
  refill() {
    const { control, noted, whole } = this.inputs.value;
    const [scope, name] = [this.scope, this.inputs.name.control.value];
    const about = state.known.settings[name];
    const set = entries(state.known.document).find((each) => each.scope === scope && each.name === name);
    const running = this.about.row?.settings?.[name];
    const value = set ? set.value : running ?? "";
    const made = input(about, value);
    for (const key of ["id", "aria-describedby"]) made.setAttribute(key, control.getAttribute(key));
    control.replaceWith(made);
    this.inputs.value.control = made;
    say(whole.querySelector("label"), about.unit ? `Value (${about.unit})` : "Value");
    say(noted, `${state.known.names[name]}${set ? `; set here: ${written(set.value)}` : ""}${running === undefined ? "" : `; in force: ${running}`}`);
    say(this.inputs.name.noted, about.about);
    this.inputs.unset.whole.hidden = !set;
    if (!set) this.inputs.unset.control.checked = false;
  }

  /** Show what belongs together, and let nothing be applied but what was previewed. */
  check() {
    const { scope, free, unset, value, for_s, minutes } = this.inputs;
    if (scope) {
      free.whole.hidden = scope.control.value !== OTHER;
      value.whole.hidden = for_s.whole.hidden = unset.control.checked;
      minutes.whole.hidden = for_s.whole.hidden || for_s.control.value !== "other";
    }
    token = this.inputs.token?.control.value ?? token;
    who = this.inputs.by?.control.value ?? who;
    if (!this.apply) return;
    const same = this.ready !== null && this.ready.wish === JSON.stringify(this.wish());
    this.apply.disabled = !same || !this.ready.some;
    if (this.ready && !same) {
      this.ready = null;
      this.seen.replaceChildren(make("p", {}, "This has been changed since it was previewed."));
    }
  }

  get scope() {
    const { scope, free } = this.inputs;
    return scope.control.value === OTHER ? free.control.value.trim() : scope.control.value;
  }

  // --- what is asked for ---------------------------------------------------------------------------------------------

  wish() {
    if (this.about.rollback !== undefined) return { rollback: this.about.rollback };
    const { name, unset, for_s, minutes } = this.inputs;
    const wish = { scope: this.scope, name: name.control.value, value: unset.control.checked ? null : this.value() };
    const lasting = for_s.control.value === "other" ? minutes.control.valueAsNumber * 60 : Number(for_s.control.value);
    if (for_s.control.value && wish.value !== null) wish.for_s = lasting;
    return { changes: [wish] };
  }

  /** The value as JSON has it; text where it is none, which is refused with its bound. */
  value() {
    const { control } = this.inputs.value;
    if (control.type === "checkbox") return control.checked;
    if (control.type === "number") return Number.isNaN(control.valueAsNumber) ? "" : control.valueAsNumber;
    if (control.tagName === "SELECT") return control.value;
    try {
      return JSON.parse(control.value) ?? "";
    } catch {
      return control.value;
    }
  }

  async ask(path, more) {
    const { reason, by } = this.inputs;
    const body = { ...this.wish(), reason: reason.control.value, based_on: this.base, ...more };
    if (by.control.value.trim()) body.by = by.control.value;
    this.fine();
    this.box.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-GroundFault-Token": token },
        body: JSON.stringify(body),
        cache: "no-store",
        signal: AbortSignal.timeout(15000),
      });
      const said = await answer.text();
      if (answer.ok) return JSON.parse(said);
      this.refused(answer.status, said);
    } catch (error) {
      this.wrong([`the console did not answer: ${error.message}`]);
    } finally {
      this.box.removeAttribute("aria-busy");
    }
    return null;
  }

  async preview() {
    if (!this.apply) return;
    this.ready = null;
    this.apply.disabled = true;
    this.seen.replaceChildren();
    const wish = JSON.stringify(this.wish());
    const seen = await this.ask("settings/preview", {});
    if (!seen || wish !== JSON.stringify(this.wish())) return;
    this.ready = { wish, fingerprint: seen.fingerprint, some: seen.differences.length > 0 };
    const parts = [make("h3", {}, this.ready.some ? "What this would do" : "This would change nothing")];
    if (this.ready.some) {
      parts.push(make("ul", { class: "changes" }, ...seen.differences.map((each) => changeLines(each.path, each.old, each.new))));
      parts.push(make("p", {}, touches(seen.differences.map((each) => each.path))));
    }
    parts.push(...seen.warnings.map((each) => make("p", { class: "warning" }, `▲ ${each}`)));
    this.seen.replaceChildren(...parts);
    this.check();
    this.seen.scrollIntoView({ block: "nearest" });
  }

  async change() {
    const { ready } = this;
    if (!ready) return;
    this.apply.disabled = true;
    const done = await this.ask("settings/change", { fingerprint: ready.fingerprint });
    if (!done) return;
    this.written = done;
    this.before = this.base;
    this.bar = make("progress", { "aria-label": "Processes that run it", max: 1, value: 0 });
    this.state = make("p", { role: "status", class: "state" });
    const close = button("Close", () => this.box.close());
    this.form.replaceChildren(
      make("p", {}, `✓ Version ${done.version} is stored.`),
      make("ul", { class: "changes" }, ...done.differences.map((each) => changeLines(each.path, each.old, each.new))),
      this.state,
      this.bar,
      make("p", { class: "buttons" }, close),
    );
    this.follow();
    close.focus();
    await look();
    this.follow();
  }

  // --- what went wrong -----------------------------------------------------------------------------------------------

  fine() {
    this.errors.replaceChildren();
    for (const { control, error } of Object.values(this.inputs)) {
      control.removeAttribute("aria-invalid");
      say(error, "");
    }
  }

  wrong(texts, ...more) {
    this.errors.replaceChildren(...texts.map((each) => make("p", {}, `✖ ${each}`)), ...more);
    this.errors.scrollIntoView({ block: "nearest" });
  }

  refused(status, said) {
    this.ready = null;
    this.seen.replaceChildren();
    const texts = lines(said);
    if (status === 409) return this.conflict(JSON.parse(said));
    if (status === 403 && texts[0].includes("token")) return this.beside({ token: texts });
    const rest = [];
    const fields = {};
    for (const each of said.startsWith("{") ? JSON.parse(said).problems ?? [] : []) {
      const key = each.field === "scope" && this.inputs.free && !this.inputs.free.whole.hidden ? "free" : each.field;
      const beside = key === "for_s" && this.inputs.minutes && !this.inputs.minutes.whole.hidden ? "minutes" : key;
      if (this.inputs[beside]) (fields[beside] ??= []).push(each.text);
      else rest.push(each.text);
    }
    if (!Object.keys(fields).length && !rest.length) rest.push(...texts);
    if (rest.length) this.wrong(rest);
    return this.beside(fields);
  }

  beside(fields) {
    for (const [key, texts] of Object.entries(fields)) {
      const { control, error } = this.inputs[key];
      control.setAttribute("aria-invalid", "true");
      say(error, `✖ ${texts.join("; ")}`);
    }
    const [first] = Object.keys(fields);
    if (first) this.inputs[first].control.focus();
  }

  /** Somebody else was faster: show what it was, and go on from there if the person says so. */
  conflict(said) {
    const items = (said.meanwhile ?? []).map((each) => changeLines(each.path, each.old, each.new));
    const authors = (said.revisions ?? []).map((each) => make("p", {}, `Version ${each.version} by ${each.by}: ${each.reason}`));
    const more = [...authors, make("ul", { class: "changes" }, ...items)];
    if (said.version !== undefined) {
      more.push(
        button(`Preview again on version ${said.version}`, async () => {
          this.base = said.version;
          await look();
          this.preview();
        }),
      );
    }
    this.wrong([said.errors[0]], ...more);
    this.errors.focus();
  }

  // --- how far it has got --------------------------------------------------------------------------------------------

  /** Count the processes that run what was written, or something newer. */
  follow() {
    if (!this.written) return;
    const { version } = this.written;
    const { known, view } = state;
    const row = view.stores.find((each) => each.store === known.store) ?? (view.stores.length === 1 ? view.stores[0] : null);
    const all = row ? Object.values(row.versions).reduce((sum, each) => sum + each, 0) : 0;
    this.bar.hidden = !all;
    if (!all) return say(this.state, "No process reports that it reads this store, so who runs it is not known.");
    const past = known.history.map((each) => each.version);
    const newer = new Set([version, ...past.slice(0, Math.max(0, past.indexOf(version)))]);
    const there = [...newer].reduce((sum, each) => sum + (row.versions[each] ?? 0), 0);
    this.bar.value = there / all;
    if (there === all) return say(this.state, `✓ In force in all ${processes(all)}.`);
    const late = view.processes.filter((each) => row.store in each.versions && !newer.has(each.versions[row.store]));
    const named = late.slice(0, 5).map((each) => `${each.service ?? "a process"} ${each.pid}${each.host ? ` on ${each.host}` : ""}`);
    const rest = late.length > 5 ? ` and ${late.length - 5} more` : "";
    const trouble = [row.unreachable && `${row.unreachable} cannot reach the store`, row.rejected && `${row.rejected} reject a version`];
    return say(
      this.state,
      `… In force in ${there} of ${processes(all)}.${named.length ? ` Behind: ${named.join(", ")}${rest}.` : ""} ${trouble.filter(Boolean).join("; ")}`,
    );
  }
}
