// Batches, caches, pools and executors.

import { el, empty } from "./dom.js";
import { count, percent, seconds } from "./format.js";
import { histogram } from "./histogram.js";
import { table } from "./table.js";

const HITS = new Set(["hit", "stale", "coalesced"]);

/** Shows what was used, a table for each kind. */
export function usagePanel({ batches, caches, pools, executors }) {
  const parts = [
    ...(batches.length ? batchPart(batches) : []),
    ...(caches.length ? cachePart(caches) : []),
    ...(pools.length ? poolPart(pools) : []),
    ...(executors.length ? executorPart(executors) : []),
  ];
  if (!parts.length) {
    return empty("Nothing of the kind", "Batches, caches, object pools and executors are shown here once telemetry tells of any.");
  }
  return el("div", { class: "padded" }, parts);
}

function batchPart(batches) {
  const chart = el("div", { class: "chart", "aria-live": "polite" });
  const choose = (batch) => chart.replaceChildren(
    el("h3", {}, batch.name, el("span", { class: "note" }, " sizes of its batches, in items")),
    histogram(batch.size.bars, {
      show: (value) => String(Number(value.toPrecision(3))), label: `Histogram of the batches of ${batch.name}`, marks: [["p50", batch.size.p50]],
    }));
  choose([...batches].sort((one, other) => other.size.count - one.size.count)[0]);
  return [el("h2", {}, "Batches"), chart, table("Batches", [
    { title: "node", value: (batch) => batch.name },
    { title: "batches", value: (batch) => batch.size.count, show: (batch) => count(batch.size.count), number: true },
    { title: "mean size", value: (batch) => batch.size.mean, show: (batch) => batch.size.mean?.toFixed(1) ?? "–", number: true },
    { title: "largest", value: (batch) => batch.size.max, show: (batch) => (batch.size.max === null ? "–" : count(batch.size.max)), number: true },
    { title: "p95 wait", value: (batch) => batch.wait?.p95, show: (batch) => seconds(batch.wait?.p95), number: true },
  ], batches, { onChoose: choose, sort: 1 })];
}

function cachePart(caches) {
  const requests = (cache) => Object.values(cache.results).reduce((sum, each) => sum + each, 0);
  const hits = (cache) => Object.entries(cache.results).reduce((sum, [result, each]) => sum + (HITS.has(result) ? each : 0), 0);
  const share = (cache) => hits(cache) / (requests(cache) || 1);
  return [el("h2", {}, "Caches"), table("Caches", [
    { title: "cache", value: (cache) => cache.name },
    { title: "requests", value: requests, show: (cache) => count(requests(cache)), number: true },
    {
      title: "hits", value: share,
      show: (cache) => el("span", { class: "meter" }, el("span", { class: "meter-bar" },
        el("span", { style: { width: `${share(cache) * 100}%` } })), percent(share(cache))),
    },
    {
      title: "results", value: requests,
      show: (cache) => Object.entries(cache.results).map(([result, times]) => `${count(times)} ${result}`).join(" · "),
    },
    { title: "entries", value: (cache) => cache.entries, show: (cache) => (cache.entries === null ? "–" : count(cache.entries)), number: true },
  ], caches, { sort: 1 })];
}

function states(levels) {
  return Object.entries(levels).map(([state, { last, most }]) => `${state} ${count(last)} (at most ${count(most)})`).join(" · ");
}

function poolPart(pools) {
  return [el("h2", {}, "Object pools"), table("Object pools", [
    { title: "pool", value: (pool) => pool.name },
    { title: "lent", value: (pool) => pool.wait?.count, show: (pool) => (pool.wait ? count(pool.wait.count) : "–"), number: true },
    { title: "p95 wait", value: (pool) => pool.wait?.p95, show: (pool) => seconds(pool.wait?.p95), number: true },
    { title: "objects, last seen", value: (pool) => states(pool.states) },
  ], pools, { sort: 1 })];
}

function executorPart(executors) {
  return [el("h2", {}, "Executors"), table("Executors", [
    { title: "executor", value: (executor) => executor.name },
    { title: "tasks", value: (each) => each.wait?.count, show: (each) => (each.wait ? count(each.wait.count) : "–"), number: true },
    { title: "p95 wait", value: (each) => each.wait?.p95, show: (each) => seconds(each.wait?.p95), number: true },
    { title: "workers, last seen", value: (each) => states(each.states) },
    { title: "queue, last seen", value: (each) => states(each.queue) },
  ], executors, { sort: 1 })];
}
