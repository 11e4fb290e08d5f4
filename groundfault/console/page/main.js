// Gets a view each second and hands it to the parts of the page. A part is a module with show(view).
import * as headline from "./headline.js";
import * as tiles from "./tiles.js";
import * as map from "./map.js";
import * as timeline from "./timeline.js";
import * as tuning from "./tuning.js";

const parts = [headline, tiles, map, timeline, tuning];

async function look() {
  try {
    const answer = await fetch("snapshot.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    const view = await answer.json();
    for (const part of parts) part.show(view);
  } catch (error) {
    headline.lost(String(error));
  }
  setTimeout(look, 1000);
}

look();
