// One trace as a waterfall: the tree of its spans, their bars, the critical path, and the links of the active span.

import { colorOf, el, svg, themed } from "./dom.js";
import { count, duration, plural, ticks } from "./format.js";
import { Rows } from "./rows.js";

const ROW = 26;
const INDENT = 14;
const MOST_INDENT = 16;
const TICKS = 5;
const MAP_HEIGHT = 56;
/** Spans that are drawn over each other in one line of the map; more could not be told apart. */
const MAP_DENSITY = 4;
const ZOOM = 2;
const LABEL_FITS = 0.82;

/** The waterfall; `onActive` is told the index of the active span. */
export class Waterfall {
  constructor(spans, onActive) {
    this.spans = spans;
    this.onActive = onActive;
    this.collapsed = new Set();
    this.rows = new Rows({
      role: "treegrid", label: "Spans", height: ROW,
      draw: (at) => this.#row(this.visible[at]),
      onActive: (at) => this.#activated(this.visible[at]),
      onKey: (event) => this.#key(event),
      onDraw: () => this.#drawLinks(),
    });
    this.visible = [];
    this.axis = el("div", { class: "axis", "aria-hidden": "true" });
    this.head = el("div", { class: "row-head" }, el("span", { class: "head-name" }, "span"), this.axis);
    this.map = el("canvas", { class: "map", "aria-hidden": "true" });
    this.window = el("div", { class: "map-window" });
    this.mapBox = el("div", { class: "map-box", title: "Drag to look closer; double-click for all of it" },
      this.map, this.window);
    this.arrows = svg("svg", { class: "arrows", "aria-hidden": "true" });
    this.rows.inside.after(this.arrows);
    this.heading = el("div", { class: "trace-heading" });
    this.only = el("input", { type: "checkbox", on: { change: () => this.#arrange() } });
    this.search = el("input", {
      type: "search", placeholder: "Find a span", "aria-label": "Find a span; Enter goes to the next",
      on: { keydown: (event) => event.key === "Enter" && this.#findNext() },
    });
    const button = (label, sign, action) =>
      el("button", { type: "button", class: "icon", title: label, "aria-label": label, on: { click: action } }, sign);
    this.element = el("section", { class: "trace", "aria-label": "Trace" },
      this.heading,
      el("div", { class: "tools" }, this.search,
        el("label", { class: "check" }, this.only, "critical path only"),
        el("span", { class: "legend" }, el("i", { class: "legend-critical" }), "critical path"),
        button("Look closer", "+", () => this.#zoom(1 / ZOOM)), button("Look from further away", "−", () => this.#zoom(ZOOM)),
        button("Show all of it", "⤢", () => this.#look(0, this.trace.length))),
      this.mapBox,
      this.head,
      this.rows.element);
    this.#brush();
    new ResizeObserver(() => this.trace && this.#drawMap()).observe(this.mapBox);
  }

  /** Shows a trace, and in it the span with an index, the first by default. */
  show(trace, index = trace.first) {
    if (trace !== this.trace) {
      this.trace = trace;
      this.collapsed.clear();
      this.path = this.spans.path(trace);
      this.from = 0;
      this.to = Math.max(1, trace.length);
      this.rows.element.scrollTop = 0;
      this.#drawHeading();
    }
    for (let parent = this.spans.parents[index]; parent >= 0; parent = this.spans.parents[parent]) {
      this.collapsed.delete(parent);
    }
    this.active = index;
    this.#arrange();
    this.rows.reveal(this.place.get(index));
    this.rows.draw();
    this.onActive(index);
  }

  focus() {
    this.rows.element.focus();
  }

  redraw() {
    if (!this.trace) return;
    this.#drawMap();
    this.rows.draw();
  }

  #drawHeading() {
    const { trace, spans } = this;
    const threads = new Set(spans.threads.slice(trace.first, trace.first + trace.held));
    const facts = [duration(trace.length), plural(trace.count, "span"), plural(threads.size, "thread")];
    if (trace.errors) facts.push(plural(trace.errors, "error"));
    if (trace.leftOut) facts.push(`${plural(trace.leftOut, "span")} left out of this report`);
    this.heading.replaceChildren(el("h2", {}, trace.name || "(no name)"),
      el("p", { class: "note" }, facts.join(" · "), " · ", el("code", {}, trace.id)));
  }

  #arrange() {
    const { first, held } = this.trace;
    const visible = [];
    const needed = this.only.checked ? this.#onPath() : null;
    for (let index = first; index < first + held; ) {
      if (!needed || needed.has(index)) visible.push(index);
      index = this.collapsed.has(index) ? this.spans.ends[index] : index + 1;
    }
    this.visible = visible;
    this.place = new Map(visible.map((index, at) => [index, at]));
    if (!this.place.has(this.active)) this.active = visible[0];
    this.rows.show(visible.length, this.place.get(this.active) ?? -1);
    this.#drawAxis();
    this.#drawMap();
  }

  #onPath() {
    const needed = new Set();
    for (const index of this.path.keys()) {
      for (let up = index; up >= 0 && !needed.has(up); up = this.spans.parents[up]) needed.add(up);
    }
    return needed;
  }

  #activated(index) {
    this.active = index;
    this.onActive(index);
  }

  #key(event) {
    const index = this.active;
    const inside = this.spans.ends[index] - index - 1;
    if (event.key === "ArrowRight") {
      if (this.collapsed.has(index)) this.#toggle(index);
      else if (inside) this.rows.activate(this.rows.active + 1);
    } else if (event.key === "ArrowLeft") {
      if (inside && !this.collapsed.has(index)) this.#toggle(index);
      else if (this.spans.parents[index] >= 0) this.rows.activate(this.place.get(this.spans.parents[index]) ?? -1);
    } else if (event.key === "Enter" || event.key === " ") {
      if (inside) this.#toggle(index);
    } else if (event.key === "+" || event.key === "=") this.#zoom(1 / ZOOM);
    else if (event.key === "-") this.#zoom(ZOOM);
    else if (event.key === "0") this.#look(0, this.trace.length);
    else return false;
    return true;
  }

  #toggle(index) {
    if (!this.collapsed.delete(index)) this.collapsed.add(index);
    this.active = index;
    this.#arrange();
  }

  #findNext() {
    const wanted = this.search.value.trim().toLowerCase();
    const { first, held } = this.trace;
    for (let step = 1; wanted && step <= held; step += 1) {
      const index = first + ((this.active - first + step) % held);
      if (this.spans.name(index).toLowerCase().includes(wanted)) {
        this.only.checked = false;
        this.show(this.trace, index);
        return;
      }
    }
  }

  // --- time ---------------------------------------------------------------------------------------------------

  #zoom(factor) {
    const { spans, active } = this;
    const middle = Math.min(this.to, Math.max(this.from, spans.starts[active] + spans.lasted(active) / 2));
    const length = (this.to - this.from) * factor;
    this.#look(middle - length / 2, middle + length / 2);
  }

  #look(from, to) {
    const whole = Math.max(1, this.trace.length);
    const length = Math.min(whole, Math.max(1, to - from));
    this.from = Math.min(Math.max(0, from), whole - length);
    this.to = this.from + length;
    this.#drawAxis();
    this.#drawWindow();
    this.rows.draw();
  }

  #share(time) {
    return (time - this.from) / (this.to - this.from);
  }

  #drawAxis() {
    const { offsetWidth, clientWidth } = this.rows.element;
    this.head.style.paddingRight = `${offsetWidth - clientWidth}px`;
    this.axis.replaceChildren(...ticks(this.from, this.to, TICKS).filter((time) => this.#share(time) < 0.95).map((time) =>
      el("span", { style: { left: `${this.#share(time) * 100}%` } }, duration(time))));
  }

  #brush() {
    const time = (event) => {
      const box = this.mapBox.getBoundingClientRect();
      return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * this.trace.length;
    };
    let began = null;
    this.mapBox.addEventListener("pointerdown", (event) => {
      began = time(event);
      this.mapBox.setPointerCapture(event.pointerId);
    });
    this.mapBox.addEventListener("pointermove", (event) => {
      const now = time(event);
      if (began !== null && Math.abs(now - began) > this.trace.length / 200) {
        this.#look(Math.min(began, now), Math.max(began, now));
      }
    });
    this.mapBox.addEventListener("pointerup", () => {
      began = null;
    });
    this.mapBox.addEventListener("dblclick", () => this.#look(0, this.trace.length));
  }

  #drawWindow() {
    const whole = Math.max(1, this.trace.length);
    this.window.style.left = `${(this.from / whole) * 100}%`;
    this.window.style.width = `${((this.to - this.from) / whole) * 100}%`;
    this.window.hidden = this.to - this.from >= whole;
  }

  /** Draws the map before the next frame, once, however often it is asked for. */
  #drawMap() {
    if (this.mapAsked) return;
    this.mapAsked = true;
    requestAnimationFrame(() => {
      this.mapAsked = false;
      this.#drawMapNow();
    });
  }

  #drawMapNow() {
    const width = this.mapBox.clientWidth;
    const ratio = window.devicePixelRatio || 1;
    this.map.width = width * ratio;
    this.map.height = MAP_HEIGHT * ratio;
    const draw = this.map.getContext("2d");
    const colors = Array.from({ length: 10 }, (_, number) => themed(`--c${number}`));
    const red = themed("--error");
    const [all, total] = [Math.max(1, this.trace.length), Math.max(1, this.visible.length)];
    const thick = Math.max(1, Math.min(6, (this.map.height / total) * 0.8));
    const step = Math.ceil(total / (this.map.height * MAP_DENSITY));
    draw.clearRect(0, 0, this.map.width, this.map.height);
    this.visible.forEach((index, at) => {
      const whole = at % step === 0;
      if (!whole && !this.spans.failed(index)) return;
      draw.fillStyle = this.spans.failed(index) ? red : colors[colorOf(this.spans.name(index))];
      const x = (this.spans.starts[index] / all) * this.map.width;
      const long = Math.max(ratio, (this.spans.lasted(index) / all) * this.map.width);
      draw.fillRect(x, Math.floor((at / total) * this.map.height), whole ? long : 2 * ratio, thick);
    });
    this.#drawWindow();
  }

  // --- rows ---------------------------------------------------------------------------------------------------

  #row(index) {
    const { spans } = this;
    const depth = spans.depths[index];
    const name = spans.name(index);
    const failed = spans.failed(index);
    const expected = spans.expected(index);
    const inside = spans.ends[index] - index - 1;
    const closed = this.collapsed.has(index);
    const links = spans.links[index]?.length ?? 0;
    const onPath = this.path.has(index);
    const twist = inside
      ? el("span", {
        class: "twist", "aria-hidden": "true",
        on: { click: (event) => { event.stopPropagation(); this.#toggle(index); } },
      }, closed ? "▸" : "▾")
      : el("span", { class: "twist" });
    const row = el("div", {
      class: `span${failed ? " span-failed" : ""}${index === this.active ? " active" : ""}`,
      "aria-level": depth + 1,
      "aria-label": [name, spans.took(index), failed && "failed", expected && `expected ${expected}`, onPath && "on the critical path",
        links && plural(links, "link"), closed && `${count(inside)} inside`].filter(Boolean).join(", "),
    },
      el("span", { class: "span-name", role: "gridcell", title: name,
        style: { "padding-left": `${Math.min(depth, MOST_INDENT) * INDENT}px` } },
        depth > MOST_INDENT ? el("span", { class: "depth" }, depth) : null, twist,
        el("span", { class: "text" }, name),
        failed ? el("span", { class: "bad", "aria-hidden": "true" }, "✕") : null,
        expected ? el("span", { class: "badge", title: `expected ${expected}` }, "◌ expected") : null,
        links ? el("span", { class: "badge", title: plural(links, "link") }, `⇠${links}`) : null,
        closed ? el("span", { class: "badge" }, `+${count(inside)}`) : null),
      this.#bar(index, name, failed));
    if (inside) row.setAttribute("aria-expanded", !closed);
    return row;
  }

  #bar(index, name, failed) {
    const { spans } = this;
    const start = this.#share(spans.starts[index]);
    const end = this.#share(spans.starts[index] + spans.lasted(index));
    const cell = el("span", { class: "span-time", role: "gridcell" });
    if (end < 0 || start > 1) return cell;
    const [low, high] = [Math.max(0, start), Math.min(1, end)];
    const unfinished = spans.lengths[index] < 0 ? " unfinished" : "";
    cell.append(el("span", {
      class: `bar ${failed ? "bar-failed" : `c${colorOf(name)}`}${unfinished}`,
      style: { left: `${low * 100}%`, width: `${(high - low) * 100}%` },
    }));
    for (const [from, length] of this.path.get(index) ?? []) {
      const [left, right] = [Math.max(0, this.#share(from)), Math.min(1, this.#share(from + length))];
      if (right > left) {
        cell.append(el("span", { class: "critical", style: { left: `${left * 100}%`, width: `${(right - left) * 100}%` } }));
      }
    }
    const after = high < LABEL_FITS;
    const before = !after && low > 1 - LABEL_FITS;
    cell.append(el("span", {
      class: `took ${after ? "after" : before ? "before" : "within"}`,
      style: after ? { left: `${high * 100}%` } : before ? { right: `${(1 - low) * 100}%` } : { right: "0" },
    }, spans.took(index)));
    return cell;
  }

  /** Draws an arrow to the active span from each span that it links to, and from it to those that link to it. */
  #drawLinks() {
    const { spans, active } = this;
    this.arrows.replaceChildren();
    if (!this.trace || !this.place?.has(active)) return;
    const cell = this.rows.inside.querySelector(".span-time");
    if (!cell) return;
    const left = cell.offsetLeft;
    const width = cell.clientWidth;
    const x = (time) => left + Math.min(1, Math.max(0, this.#share(time))) * width;
    const y = (index) => (this.place.get(index) + 0.5) * ROW;
    const pairs = [
      ...(spans.links[active] ?? []).map(([other]) => [other, active]),
      ...(spans.backlinks.get(active) ?? []).map((other) => [active, other]),
    ].filter(([from, to]) => this.place.has(from) && this.place.has(to));
    this.arrows.setAttribute("height", this.rows.total * ROW);
    for (const [from, to] of pairs) {
      const [x1, y1] = [x(spans.starts[from] + spans.lasted(from)), y(from)];
      const [x2, y2] = [x(spans.starts[to]), y(to)];
      const bend = Math.max(18, Math.abs(x2 - x1) / 2);
      this.arrows.append(
        svg("path", { class: "arrow", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` }),
        svg("circle", { class: "arrow-end", cx: x2, cy: y2, r: 3 }));
    }
  }
}
