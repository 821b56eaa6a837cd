// Puts the page together: numbers on top, tabs, and what the address says is to be shown.

import { Spans, unpack } from "./data.js";
import { Details } from "./details.js";
import { chip, el, empty, rove } from "./dom.js";
import { flowPanel } from "./flow.js";
import { count, moment, percent, plural, seconds } from "./format.js";
import { healthPanel } from "./health.js";
import { redrawHistograms } from "./histogram.js";
import { latencyPanel } from "./latency.js";
import { profilePanel } from "./profiles.js";
import { Runs } from "./runs.js";
import { usagePanel } from "./usage.js";
import { Waterfall } from "./waterfall.js";

const THEMES = ["auto", "light", "dark"];
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };
const KEPT = "aetherflow-report-theme";

/** The tab with runs: list, waterfall and details. */
class RunsPanel {
  constructor(spans) {
    this.spans = spans;
    if (!spans.length) {
      this.element = empty("No traces", "This telemetry holds no spans. Run a flow with configure(), and make the report anew.");
      return;
    }
    this.details = new Details(spans, (index) => this.go(index));
    this.waterfall = new Waterfall(spans, (index) => this.#active(index));
    this.runs = new Runs(spans, (trace) => {
      this.waterfall.show(trace);
      this.runs.mark(trace);
    });
    this.element = el("div", { class: "three" }, this.runs.element, this.waterfall.element, this.details.element);
  }

  #active(index) {
    const trace = this.spans.traceOf(index);
    this.details.show(index, trace, this.spans.path(trace));
    if (!this.element.closest("[hidden]")) address("runs", trace.id, this.spans.id(index));
  }

  /** Shows the span with an index, wherever it is. */
  go(index) {
    const trace = this.spans.traceOf(index);
    this.waterfall.show(trace, index);
    this.runs.mark(trace);
    this.waterfall.focus();
  }

  /** Shows what an address names, else the newest run. */
  begin(traceId, spanId) {
    if (!this.spans.length) return;
    const trace = this.spans.traces.find((each) => each.id === traceId) ?? this.spans.runs.at(-1);
    let index = trace.first;
    for (let at = trace.first; at < trace.first + trace.held; at += 1) if (this.spans.id(at) === spanId) index = at;
    this.waterfall.show(trace, index);
    this.runs.mark(trace);
  }
}

function address(...parts) {
  try {
    history.replaceState(null, "", `#${parts.join("/")}`);
  } catch {
    // a viewer that forbids it shows the page all the same
  }
}

function figures(data, spans) {
  const runs = spans.runs.length;
  const failed = spans.runs.filter((trace) => trace.errors).length;
  const times = spans.runs.map((trace) => trace.length).sort((one, other) => one - other);
  const at = (share) => (runs ? seconds(times[Math.min(runs - 1, Math.ceil(share * runs) - 1)] / 1e9) : "–");
  const figure = (title, value, bad = false) =>
    el("div", { class: bad ? "figure figure-bad" : "figure" }, el("dt", {}, title), el("dd", {}, value));
  return el("dl", { class: "figures" },
    figure("runs", count(runs)), figure("with errors", failed ? `${count(failed)} · ${percent(failed / runs)}` : runs ? "0" : "–", failed > 0),
    figure("median", at(0.5)), figure("p95", at(0.95)), figure("spans", count(spans.length)),
    figure("health", chip(data.health.status)));
}

function themeButton(onChange) {
  const button = el("button", { type: "button", class: "theme" });
  let theme = "auto";
  try {
    theme = THEMES.includes(localStorage.getItem(KEPT)) ? localStorage.getItem(KEPT) : "auto";
  } catch {
    // no storage: the choice lasts as long as the page
  }
  const set = (chosen) => {
    theme = chosen;
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.replaceChildren(el("span", { "aria-hidden": "true" }, SIGNS[theme]), ` ${theme}`);
    button.setAttribute("aria-label", `Theme: ${theme}`);
    onChange();
  };
  button.addEventListener("click", () => {
    set(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
    try {
      localStorage.setItem(KEPT, theme);
    } catch {
      // as above
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
  set(theme);
  return button;
}

function tabs(entries, begin) {
  const made = new Map();
  const panels = entries.map(([key, title]) =>
    el("div", { id: `panel-${key}`, class: "panel", role: "tabpanel", "aria-label": title, hidden: true }));
  const choose = (at) => {
    const [key, , , make] = entries[at];
    buttons.forEach((button, each) => {
      button.setAttribute("aria-selected", each === at);
      button.tabIndex = each === at ? 0 : -1;
      panels[each].hidden = each !== at;
    });
    if (!made.has(key)) {
      made.set(key, true);
      panels[at].append(make());
    }
    if (key !== "runs") address(key);
  };
  const buttons = entries.map(([key, title, number], at) =>
    el("button", { type: "button", role: "tab", id: `tab-${key}`, "aria-controls": `panel-${key}`, on: { click: () => choose(at) } },
      title, number === null ? null : el("span", { class: "tab-count" }, count(number))));
  rove(buttons, { onMove: choose });
  choose(Math.max(0, entries.findIndex(([key]) => key === begin)));
  return { element: el("div", { class: "tabs", role: "tablist", "aria-label": "Parts of the report" }, buttons), panels, choose };
}

function start(data) {
  const spans = new Spans(data.spans);
  const runs = new RunsPanel(spans);
  const [tab, traceId, spanId] = location.hash.slice(1).split("/");
  const go = (index) => {
    bar.choose(0);
    runs.go(index);
  };
  const entries = [
    ["runs", "Runs", spans.runs.length, () => runs.element],
    ["flow", "Flow graph", data.flows.length, () => flowPanel(data.flows)],
    ["latency", "Latency", data.latencies.length, () => latencyPanel(data.latencies)],
    ["health", "Health", null, () => healthPanel(data.health, data.minimum)],
    ["profiles", "Profiles", data.profiles.length, () => profilePanel(data.profiles, go)],
    ["usage", "Batches and caches", null, () => usagePanel(data.usage)],
  ];
  const bar = tabs(entries, tab || "runs");
  const redraw = () => {
    runs.waterfall?.redraw();
    redrawHistograms();
  };
  const made = `${plural(data.files, "file")} · made ${moment(BigInt(data.made))}`;
  document.body.replaceChildren(
    el("header", {}, el("div", { class: "title" }, el("h1", {}, data.title), el("p", { class: "note" }, made)),
      figures(data, spans), themeButton(redraw)),
    data.notes.length ? el("div", { class: "notes", role: "note" }, data.notes.map((note) => el("p", {}, note))) : "",
    el("nav", {}, bar.element), el("main", {}, bar.panels));
  runs.begin(traceId, spanId);
  document.documentElement.dataset.ready = "true";
}

unpack(document.getElementById("data").textContent).then(start).catch((error) => {
  document.body.replaceChildren(empty("This page could not be shown", String(error)));
  throw error;
});
