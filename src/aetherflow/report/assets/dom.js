// Elements. Text only ever becomes text: nothing here parses markup, whatever telemetry calls its spans.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    const isState = key.startsWith("aria-");
    if (value === null || value === undefined || (value === false && !isState)) continue;
    if (key === "on") for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    else if (key === "style") for (const [name, given] of Object.entries(value)) node.style.setProperty(name, given);
    else node.setAttribute(key, value === true && !isState ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Makes an HTML element; `on` holds listeners and `style` CSS properties. */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** Makes an SVG element. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

/** Reads a colour, or another custom property, of the current theme. */
export function themed(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const COLORS = 10;
const colors = new Map();

/** Gives the colour of a name by number: the next one for a name that has none yet, and then always the same. */
export function colorOf(name) {
  if (!colors.has(name)) colors.set(name, colors.size % COLORS);
  return colors.get(name);
}

/** Says that there is nothing, and why. */
export function empty(title, hint) {
  return el("div", { class: "empty" }, el("p", { class: "empty-title" }, title), el("p", {}, hint));
}

/** A chip that tells a status in a word, a sign and a colour. */
export function chip(status) {
  const sign = { ok: "✓", healthy: "✓", warning: "!", degraded: "!", error: "✕", unhealthy: "✕" }[status] ?? "?";
  return el("span", { class: `chip chip-${status}` }, el("span", { "aria-hidden": "true" }, `${sign} `), status);
}

/** Lets the arrow keys move the focus among elements, of which one at a time is in the tab order. */
export function rove(items, { vertical = false, onMove = () => {} } = {}) {
  const [back, forth] = vertical ? ["ArrowUp", "ArrowDown"] : ["ArrowLeft", "ArrowRight"];
  const go = (index) => {
    for (const item of items) item.tabIndex = -1;
    items[index].tabIndex = 0;
    items[index].focus();
    onMove(index);
  };
  items.forEach((item, index) => {
    item.tabIndex = item.tabIndex === 0 && index === 0 ? 0 : -1;
    item.addEventListener("keydown", (event) => {
      const to = { [back]: index - 1, [forth]: index + 1, Home: 0, End: items.length - 1 }[event.key];
      if (to === undefined || to < 0 || to >= items.length) return;
      event.preventDefault();
      go(to);
    });
  });
  if (items.length > 0) items[0].tabIndex = 0;
}
