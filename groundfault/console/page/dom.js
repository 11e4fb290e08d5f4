// Makes elements and writes numbers. Text goes in as text, never as markup: names may be hostile.

/** Return an element: make("p", {class: "x", title: "y"}, "text", child). A value of null leaves an attribute out. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** The same for SVG. */
export function draw(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Set text only where it differs: layout is what costs. */
export function say(element, text) {
  const only = element.firstChild;
  if (only !== null && only.nodeType === Node.TEXT_NODE && only === element.lastChild) {
    if (only.data !== text) only.data = text;
  } else if (element.textContent !== text) element.textContent = text;
}

/** Set or take away (null) an attribute only where it differs. */
export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

const known = (value) => typeof value === "number" && Number.isFinite(value);
const trim = (value) => (value >= 100 ? String(Math.round(value)) : String(+value.toPrecision(3)));

/** 12300 -> "12.3k"; 0.04 -> "0.04"; what is no number -> "–". */
export function count(value) {
  if (!known(value)) return "–";
  if (value >= 1e6) return `${trim(value / 1e6)}M`;
  if (value >= 1e4) return `${trim(value / 1e3)}k`;
  return trim(value);
}

/** 0.0123 -> "12.3 ms"; null -> "–". */
export function time(seconds) {
  if (!known(seconds)) return "–";
  if (seconds >= 7200) return `${Math.round(seconds / 3600)} h`;
  if (seconds >= 120) return `${Math.round(seconds / 60)} min`;
  if (seconds > 0 && seconds < 1e-4) return "< 0.1 ms";
  if (seconds >= 1) return `${trim(seconds)} s`;
  return `${trim(seconds * 1e3)} ms`;
}

/** The same without parts of a second: 12.6 -> "13 s". */
export const whole = (seconds) => (seconds < 1 ? `${Math.round(seconds)} s` : time(Math.round(seconds)));

/** 0.034 -> "3.4 %". */
export function share(value) {
  if (!known(value)) return "–";
  if (value > 0 && value < 0.001) return "< 0.1 %";
  return `${+(value * 100).toPrecision(value >= 0.9995 ? 4 : 3)} %`;
}

/** The signs of levels: color is never alone. */
export const SIGNS = { ok: "✓", warn: "▲", bad: "✖" };

/** The same in words, for those who hear the page. */
export const WORDS = { ok: "fine", warn: "warning", bad: "bad" };

/** A sign for a level, and its word beside it for those who hear the page. */
export function sign(level = "ok") {
  const seen = make("span", { class: "sign", "aria-hidden": "true" }, SIGNS[level] ?? "?");
  const heard = make("span", { class: "spoken" }, `${WORDS[level] ?? level}: `);
  const root = make("span", { class: "level" }, seen, heard);
  return {
    root,
    set(now) {
      say(seen, SIGNS[now] ?? "?");
      say(heard, `${WORDS[now] ?? now}: `);
    },
  };
}

const HEIGHT = 30;

/** Two minutes of traffic, with what went badly in front of it: one path each. */
export function sparkline(name) {
  const traffic = draw("path", { class: "traffic" });
  const bad = draw("path", { class: "badly" });
  const root = draw("svg", { class: "spark", role: "img", preserveAspectRatio: "none" }, traffic, bad);
  return {
    root,
    set(points, badly, every = 2) {
      const top = points.reduce((most, value) => Math.max(most, value ?? 0), 0) || 1;
      const width = Math.max(points.length - 1, 1) * 2;
      mark(root, "viewBox", `0 0 ${width} ${HEIGHT}`);
      mark(traffic, "d", area(points, top));
      mark(bad, "d", area(badly, top));
      mark(root, "aria-label", inWords(name, points, badly, every));
    },
  };
}

function area(points, top) {
  let path = "";
  let last = null;
  points.forEach((value, index) => {
    if (known(value)) {
      if (last === null) path += `M${index * 2} ${HEIGHT}`;
      path += `L${index * 2} ${+(HEIGHT - (Math.min(value, top) / top) * (HEIGHT - 1)).toFixed(1)}`;
      last = index;
    } else if (last !== null) {
      path += `L${last * 2} ${HEIGHT}Z`;
      last = null;
    }
  });
  return last === null ? path : `${path}L${last * 2} ${HEIGHT}Z`;
}

function inWords(name, points, badly, every) {
  const numbers = points.filter(known);
  if (!numbers.length) return `${name}: nothing is known`;
  const worst = badly.filter(known).reduce((most, value) => Math.max(most, value), 0);
  const span = time(points.length * every);
  const words = `${name}, last ${span}: now ${count(numbers.at(-1))} per second, at most ${count(Math.max(...numbers))}`;
  return worst > 0 ? `${words}; at most ${count(worst)} per second went badly` : `${words}; nothing went badly`;
}

/** A bar that is full at ``most``; beyond it, it is marked as over. The numbers stand beside it, in words. */
export function bar() {
  const fill = make("i");
  const root = make("span", { class: "bar", "aria-hidden": "true" }, fill);
  let drawn = null;
  return {
    root,
    set(value, most) {
      const part = known(value) && known(most) && most > 0 ? Math.min(value / most, 1) : null;
      root.hidden = part === null;
      if (part === null || part === drawn) return;
      drawn = part;
      fill.style.setProperty("--part", part.toFixed(3));
      mark(root, "data-full", value >= most ? "yes" : null);
    },
  };
}
