// Says when what is shown is not new: how old it is, why, and when it is new again.
import { say, whole } from "./dom.js";

const STAY_MS = 4000;
const ROUNDING_S = 1.5; // the Date of an answer has whole seconds

const banner = document.getElementById("stale");
const [words, ticking, reload] = banner.children;
let isOutdated = false;
let visibleAt = 0;
let goodUntil = 0;

reload.addEventListener("click", () => location.reload());
document.addEventListener("visibilitychange", () => (visibleAt = performance.now()));

const times = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" }); // making one takes milliseconds

export const clock = (seconds) => (seconds ? times.format(seconds * 1000) : "an unknown time");

/** How many seconds old the newest view is. */
export const ageOf = (state) => state.age + (performance.now() - state.newAt) / 1000;

/** A view came that this page cannot read: it was loaded from an older release. */
export function outdated(view) {
  isOutdated = true;
  document.body.classList.add("is-stale");
  banner.hidden = false;
  reload.hidden = false;
  say(words, `This page is older than the service (release ${view.release ?? "unknown"}, format ${view.format}): reload it.`);
  say(ticking, "");
}

/** Called once a second, and with each view. */
export function tell(state) {
  if (isOutdated) return;
  const now = performance.now();
  const silent = (now - Math.max(state.newAt, visibleAt)) / 1000;
  const patience = 3 * state.interval;
  const isStale = silent > patience || state.age > patience + ROUNDING_S || (state.seen === null && state.failure !== null);
  const was = document.body.classList.toggle("is-stale", isStale);
  if (was) {
    say(words, why(state));
    const next = Math.max(0, Math.ceil((state.next - now) / 1000));
    say(ticking, [state.seen && `${whole(ageOf(state))} old`, state.failure && `next try in ${next} s`].filter(Boolean).join(" · "));
    goodUntil = Infinity;
  } else if (goodUntil === Infinity) {
    goodUntil = now + STAY_MS;
    say(words, "The data is new again.");
    say(ticking, "");
  }
  banner.classList.toggle("is-good", !was);
  banner.hidden = now > goodUntil || goodUntil === 0;
}

function why(state) {
  const since = state.seen === null ? "No data yet" : `No new data since ${clock(state.made)}`;
  if (state.failure !== null) return `${since}. The console does not answer: ${state.failure}.`;
  return `${since}. The console answers, but what it shows stands still: nobody records any more.`;
}
