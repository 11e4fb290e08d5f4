// Gets views and hands them to the parts of the page. A part is a module with show(view).
import * as about from "./about.js";
import { make, say } from "./dom.js";
import { feed } from "./feed.js";
import * as headline from "./headline.js";
import * as map from "./map.js";
import { isNewer, read } from "./reading.js";
import * as servers from "./servers.js";
import * as stale from "./stale.js";
import * as tiles from "./tiles.js";
import * as timeline from "./timeline.js";
import * as tuning from "./tuning.js";

const parts = { headline, servers, commands: tiles, map, timeline, settings: tuning, about };
const failed = new Map();

// A part that cannot draw what came says so in its place; the others go on.
function give(name, view) {
  try {
    parts[name].show(view);
    failed.get(name)?.remove();
    failed.delete(name);
  } catch (error) {
    if (failed.has(name)) return say(failed.get(name), `This part cannot be drawn: ${error}`);
    const note = make("p", { class: "failed" }, `This part cannot be drawn: ${error}`);
    failed.set(name, note);
    document.getElementById(name)?.append(note);
  }
}

function take(given) {
  if (isNewer(given)) return stale.outdated(given);
  const view = read(given);
  for (const name of Object.keys(parts)) give(name, view);
  document.body.dataset.drawn = view.sequence;
}

// Not an address in the location: that is where the filter is kept.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("commands").focus();
});

feed(take, (state) => {
  stale.tell(state);
  headline.aged(state);
});
