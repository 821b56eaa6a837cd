// How long runs and nodes took.

import { el, empty } from "./dom.js";
import { count, percent, seconds } from "./format.js";
import { histogram } from "./histogram.js";
import { table } from "./table.js";

/** Shows the table of latencies, and the histogram of the row that is chosen. */
export function latencyPanel(rows) {
  if (!rows.length) return empty("Nothing was timed", "Neither metrics nor spans say how long anything took.");
  const chart = el("div", { class: "chart", "aria-live": "polite" });
  const choose = (row) => {
    const marks = [["p50", row.p50], ["p95", row.p95], ["p99", row.p99]];
    chart.replaceChildren(
      el("h2", {}, row.name, el("span", { class: "note" }, ` ${row.kind}${row.flow && row.flow !== row.name ? ` of ${row.flow}` : ""}`)),
      el("p", { class: "note" }, `${count(row.computed)} measured${leftOut(row)}, from ${row.source === "metrics"
        ? "exported metrics: every execution" : "the spans in this report: no metrics were exported"}`),
      row.bars.length && histogram(row.bars, { show: seconds, marks, label: `Histogram of how long ${row.name} took` }));
  };
  const first = [...rows].sort((one, other) => (other.p95 ?? 0) - (one.p95 ?? 0))[0];
  const view = table("Latencies", [
    { title: "name", value: (row) => row.name },
    { title: "kind", value: (row) => row.kind },
    { title: "flow", value: (row) => row.flow },
    { title: "count", value: (row) => row.count, show: (row) => count(row.count), number: true },
    { title: "cached", value: (row) => row.cached / row.count, show: (row) => share(row.cached, row), number: true },
    { title: "retried", value: (row) => row.retried / row.count, show: (row) => share(row.retried, row), number: true },
    ...["mean", "p50", "p95", "p99", "max"].map((key) => ({
      title: key, value: (row) => row[key], show: (row) => seconds(row[key]), number: true,
    })),
    {
      title: "errors", value: (row) => row.errors / row.count, number: true,
      show: (row) => (row.errors ? el("span", { class: "bad" }, percent(row.errors / row.count)) : ""),
    },
  ], rows, { onChoose: choose, sort: 8 });
  choose(first);
  return el("div", { class: "padded" }, chart, view);
}

/** The number of all executions as text, if some are left out of the times because they were cached or retried. */
function leftOut(row) {
  const more = row.count - row.computed;
  return more ? ` of ${count(row.count)}: the others were cached or retried` : "";
}

function share(part, row) {
  return part ? percent(part / row.count) : "";
}
