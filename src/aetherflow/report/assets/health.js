// Health: what processes published, and what exceeds the thresholds of the health monitor.

import { chip, el, empty } from "./dom.js";
import { count, percent, plural, seconds } from "./format.js";
import { table } from "./table.js";

const RANK = { error: 3, warning: 2, unknown: 1, ok: 0 };

/** Shows the status of all together, and each check. */
export function healthPanel(health, minimum) {
  if (!health.checks.length) return empty("Nothing to judge", "There are neither metrics nor spans to hold to a threshold.");
  const shown = (check, value) => (value === null ? "–" : check.unit === "1" ? percent(value) : seconds(value));
  const published = health.published.map(({ job, status }) => el("li", {}, chip(status), el("code", {}, ` ${job}`)));
  const spans = Object.entries(health.spans).map(([outcome, number]) => `${count(number)} ${outcome}`).join(" · ");
  return el("div", { class: "padded" },
    el("div", { class: "verdict" }, chip(health.status),
      el("p", {}, "Everything in this telemetry, held to the default thresholds of ", el("code", {}, "HealthMonitor"),
        `. Below ${plural(minimum, "value")} a check is unknown.`)),
    spans ? el("p", { class: "note" }, `Spans: ${spans}`) : null,
    published.length ? el("div", {}, el("h2", {}, "Published at the end"), el("ul", { class: "plain" }, published)) : null,
    el("h2", {}, "Checks"),
    table("Checks", [
      { title: "status", value: (check) => RANK[check.status], show: (check) => chip(check.status), number: false },
      { title: "component", value: (check) => check.component },
      { title: "measurement", value: (check) => check.measurement },
      { title: "value", value: (check) => check.value, show: (check) => shown(check, check.value), number: true },
      { title: "threshold", value: (check) => check.threshold, show: (check) => shown(check, check.threshold), number: true },
    ], health.checks, { sort: 0 }));
}
