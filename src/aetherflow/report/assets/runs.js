// The list of runs: found by name or id, in three orders.

import { el } from "./dom.js";
import { count, duration, moment, plural } from "./format.js";
import { Rows } from "./rows.js";

const ORDERS = {
  newest: ["newest first", (one, other) => other.start - one.start],
  slowest: ["slowest first", (one, other) => other.length - one.length],
  errors: ["errors first", (one, other) => other.errors - one.errors || other.start - one.start],
};

/** The list; `onChoose` is told the trace that is chosen. */
export class Runs {
  constructor(spans, onChoose) {
    this.spans = spans;
    this.shown = spans.traces;
    this.longest = spans.traces.reduce((most, trace) => Math.max(most, trace.length), 1);
    this.rows = new Rows({
      role: "listbox", label: "Runs", height: 52,
      draw: (at) => this.#row(this.shown[at]),
      onActive: (at) => onChoose(this.shown[at]),
    });
    this.search = el("input", {
      type: "search", placeholder: "Find a run by name or id", "aria-label": "Find a run by name or id",
      on: { input: () => this.#arrange() },
    });
    this.order = el("select", { "aria-label": "Order of runs", on: { change: () => this.#arrange() } },
      Object.entries(ORDERS).map(([value, [title]]) => el("option", { value }, title)));
    this.every = el("input", { type: "checkbox", on: { change: () => this.#arrange() } });
    const others = spans.traces.length - spans.runs.length;
    this.told = el("p", { class: "note", role: "status" });
    this.element = el("section", { class: "runs", "aria-label": "Runs" },
      el("div", { class: "tools" }, this.search, this.order,
        others ? el("label", { class: "check" }, this.every, `and ${count(others)} other`) : null), this.told, this.rows.element);
    this.#arrange();
  }

  /** Shows which trace is chosen. */
  mark(trace) {
    this.current = trace;
    if (!this.shown.includes(trace)) {
      this.search.value = "";
      this.every.checked ||= !this.spans.runs.includes(trace);
      this.#arrange();
    }
    const at = this.shown.indexOf(trace);
    this.rows.show(this.shown.length, at);
    if (at >= 0) this.rows.reveal(at);
    this.rows.draw();
  }

  #arrange() {
    const wanted = this.search.value.trim().toLowerCase();
    const known = this.every.checked ? this.spans.traces : this.spans.runs;
    const found = known.filter(
      (trace) => trace.name.toLowerCase().includes(wanted) || trace.id.startsWith(wanted));
    this.shown = found.sort(ORDERS[this.order.value][1]);
    this.told.textContent = wanted ? `${count(this.shown.length)} of ${count(known.length)}` : "";
    this.rows.show(this.shown.length, this.shown.indexOf(this.current));
  }

  #row(trace) {
    const share = Math.max(0.5, (trace.length / this.longest) * 100);
    return el("div", { class: trace.errors ? "run run-failed" : "run", title: trace.id },
      el("span", { class: "run-name" }, trace.name || "(no name)"),
      el("span", { class: "run-time" }, duration(trace.length)),
      el("span", { class: "run-note" }, `${moment(this.spans.base + BigInt(trace.start))} · ${plural(trace.count, "span")}`),
      trace.errors ? el("span", { class: "run-errors" }, `✕ ${count(trace.errors)}`) : null,
      el("span", { class: "run-bar", "aria-hidden": "true" }, el("span", { style: { width: `${share}%` } })));
  }
}
