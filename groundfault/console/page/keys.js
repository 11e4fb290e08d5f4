// What the keyboard does, and the list of it.
import { make } from "./dom.js";
import * as filter from "./filter.js";

const KEYS = [
  ["/", "filter"], ["j k ↓ ↑", "next, previous command"], ["Enter t", "tune the command"], ["s", "sort in another way"],
  ["x", "troubled ones only"], ["Esc", "leave the command; show all"], ["?", "this list"],
];

const done = make("button", { type: "button" }, "Close");
const rows = KEYS.map(([key, what]) => make("div", {}, make("dt", {}, ...key.split(" ").map((one) => make("kbd", {}, one))), make("dd", {}, what)));
const list = make("dialog", { class: "keys", "aria-labelledby": "keys-title" }, make("h2", { id: "keys-title" }, "Keys"), make("dl", {}, ...rows), done);
document.body.append(list);
done.addEventListener("click", () => list.close());

const isTyping = (element) => element.matches?.("input, textarea, select, [contenteditable]");

/** ``go(step)``, ``tune()`` (false: there was nothing to tune) and ``leave()`` are what the commands can do. */
export function start({ go, tune, leave }) {
  filter.help.addEventListener("click", () => list.showModal());
  const work = {
    "/": () => filter.focus(),
    j: () => go(1),
    k: () => go(-1),
    ArrowDown: () => go(1),
    ArrowUp: () => go(-1),
    s: () => filter.turn(),
    x: () => filter.put({ only: filter.state.only ? "" : "trouble" }),
    t: tune,
    Enter: tune,
    Escape: leave,
    "?": () => list.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (isTyping(target)) {
      if (key === "Escape" && target.id === "q") target.value ? filter.clear() : target.blur();
      else if (target.id !== "q" || (key !== "ArrowDown" && key !== "Enter")) return;
      else go(0);
      return event.preventDefault();
    }
    const inCommands = target.closest?.(".tile, .line");
    // Arrows scroll, and Enter presses buttons and follows links, everywhere but on a tile.
    if (key.startsWith("Arrow") && !inCommands) return;
    if (key === "Enter" && !target.matches(".tile, .line")) return;
    if (key === "Escape" && !inCommands && target !== document.body && !target.closest?.("#commands")) return;
    if (Object.hasOwn(work, key) && work[key]() !== false) event.preventDefault();
  });
}
