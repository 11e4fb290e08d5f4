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
  if (element.textContent !== text) element.textContent = text;
}

/** Set or take away (null) an attribute only where it differs. */
export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** 12300 -> "12.3k"; 0.04 -> "0.04". */
export function count(value) {
  if (value >= 1e6) return `${trim(value / 1e6)}M`;
  if (value >= 1e4) return `${trim(value / 1e3)}k`;
  return trim(value);
}

const trim = (value) => (value >= 100 ? String(Math.round(value)) : String(+value.toPrecision(3)));

/** 0.0123 -> "12.3 ms"; null -> "–". */
export function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 120) return `${Math.round(seconds / 60)} min`;
  if (seconds >= 1) return `${trim(seconds)} s`;
  return `${trim(seconds * 1e3)} ms`;
}

/** 0.034 -> "3.4 %". */
export function share(value) {
  if (value > 0 && value < 0.001) return "< 0.1 %";
  return `${+(value * 100).toPrecision(value >= 0.9995 ? 4 : 3)} %`;
}

/** The signs of levels: color is never alone. */
export const SIGNS = { ok: "✓", warn: "▲", bad: "✖" };
