// Where views come from: asked for each second, one request at a time, or heard from a hub; and how old they are.
import { listen } from "./live.js";

const PATIENCE_MS = 10_000;
const HIDDEN_MS = 30_000;
const LONGEST_MS = 15_000;
const HUB_AGAIN_MS = 10_000;
const TOLD_MS = 1300; // each telling is a frame: with a view is often enough

/** Ask until the page is closed. ``take(view)`` gets what came, ``tell(state)`` is called at least once a second. */
export function feed(take, tell) {
  const live = document.documentElement.dataset.live === "events" && "EventSource" in window;
  // newAt, next: of performance.now(); age: seconds that the newest view already had when it came; interval: seconds.
  const state = { failure: null, failures: 0, next: 0, newAt: performance.now(), age: 0, seen: null, made: null, interval: 1 };
  let timer = 0;
  let asking = false;
  let close = null;
  let told = 0;

  function came(view, age) {
    // What has no number of its own cannot be told from the one before, and counts as new.
    const seen = view.sequence === undefined ? performance.now() : `${view.sequence} ${view.made_at}`;
    state.failure = null;
    state.failures = 0;
    state.interval = Math.max(1, view.interval_s || 1);
    if (seen === state.seen) return;
    Object.assign(state, { seen, age, newAt: performance.now(), made: view.made_at });
    take(view);
  }

  async function look() {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    const began = performance.now();
    try {
      const answer = await fetch("snapshot.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
      if (!answer.ok) throw new Error(`it answers ${answer.status}: ${(await answer.text()).trim().slice(0, 200)}`);
      const view = await answer.json();
      if (view === null || typeof view !== "object") throw new Error("its answer is no view");
      came(view, ageOf(view, answer));
    } catch (error) {
      state.failures += 1;
      state.failure = inWords(error);
    }
    asking = false;
    const pause = state.failures ? Math.min(1000 * 2 ** (state.failures - 1), LONGEST_MS) : state.interval * 1000;
    const spent = state.failures ? 0 : performance.now() - began;
    plan(document.hidden ? Math.max(HIDDEN_MS, pause) : Math.max(pause - spent, 250));
    say();
  }

  function say() {
    told = performance.now();
    tell(state);
  }

  function plan(wait) {
    clearTimeout(timer);
    state.next = performance.now() + wait;
    if (close === null) timer = setTimeout(look, wait);
  }

  function hear() {
    close = listen(
      (view) => {
        came(view, 0);
        say();
      },
      () => {
        close = null;
        look();
        setTimeout(() => close ?? hear(), HUB_AGAIN_MS);
      },
    );
    clearTimeout(timer);
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && close === null) look();
  });
  setInterval(() => document.hidden || performance.now() - told < TOLD_MS || say(), 1000);
  if (live) hear();
  else look();
}

// By the clock of the one that answers: the browser's may be another. Without a Date nobody knows, and it counts as new.
function ageOf(view, answer) {
  const sent = Date.parse(answer.headers.get("date") ?? "") / 1000;
  return Number.isFinite(sent) && view.made_at ? Math.max(0, sent - view.made_at) : 0;
}

function inWords(error) {
  if (error.name === "TimeoutError") return `no answer within ${PATIENCE_MS / 1000} s`;
  if (error.name === "TypeError") return "it cannot be reached";
  if (error.name === "SyntaxError") return "its answer is damaged";
  return error.message;
}
