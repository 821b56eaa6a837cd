// Flows as graphs: boxes by dagre, coloured by the time that was spent in them, marked where there were errors.

import { el, empty, svg } from "./dom.js";
import { count, percent, plural, seconds } from "./format.js";
import { table } from "./table.js";

const HEIGHT = 58;
const CHAR = 7.4;
const NAME_CHARS = 30;
const MOST_NODES = 300;
const FOR_LAYOUT = { rankdir: "LR", nodesep: 22, ranksep: 64, marginx: 16, marginy: 16 };

/** Shows the flows, the one with the most time first. */
export function flowPanel(flows) {
  if (!flows.length) {
    return empty("No flow in these traces", "Runs of AetherFlow's flows are drawn here; the traces hold none.");
  }
  const shown = el("div", { class: "flow-shown" });
  const picker = el("select", {
    id: "flow-picker",
    on: { change: () => shown.replaceChildren(...flowView(flows[picker.selectedIndex])) },
  }, flows.map((flow) => el("option", {}, `${flow.name} (${plural(flow.runs, "run")})`)));
  shown.append(...flowView(flows[0]));
  return el("div", { class: "padded" },
    el("div", { class: "tools" }, el("label", { for: "flow-picker" }, "Flow"), picker, legend()), shown);
}

function legend() {
  return el("span", { class: "legend" }, "share of node time", el("i", { class: "ramp" }), "0 – 100 %",
    el("i", { class: "legend-error" }), "errors", el("i", { class: "legend-order" }), "ran after, took nothing");
}

function flowView(flow) {
  const nodes = [...flow.nodes].sort((one, other) => other.seconds - one.seconds);
  const total = nodes.reduce((sum, node) => sum + node.seconds, 0) || 1;
  const failed = flow.errors ? ` · ${plural(flow.errors, "failed run")}` : "";
  const facts = `${plural(flow.runs, "run")} · ${seconds(flow.seconds / Math.max(1, flow.runs))} on average${failed}`;
  const more = nodes.length > MOST_NODES ? `The ${MOST_NODES} nodes with the most time of ${count(nodes.length)}.` : "";
  return [
    el("p", { class: "note" }, facts, more && ` · ${more}`),
    el("div", { class: "graph", tabindex: "0", role: "region", "aria-label": `Graph of ${flow.name}` },
      draw(flow, new Set(nodes.slice(0, MOST_NODES).map((node) => node.name)), total)),
    table("Nodes of the flow", [
      { title: "node", value: (node) => node.name },
      { title: "executions", value: (node) => node.executions, show: (node) => count(node.executions), number: true },
      { title: "total", value: (node) => node.seconds, show: (node) => seconds(node.seconds), number: true },
      { title: "share", value: (node) => node.seconds, show: (node) => percent(node.seconds / total), number: true },
      { title: "mean", value: (node) => node.mean ?? 0, show: (node) => seconds(node.mean), number: true },
      { title: "slowest", value: (node) => node.slowest ?? 0, show: (node) => seconds(node.slowest), number: true },
      { title: "errors", value: (node) => node.errors, show: (node) => (node.errors ? count(node.errors) : ""), number: true },
    ], nodes, { sort: 2 }),
  ];
}

function draw(flow, kept, total) {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ ...FOR_LAYOUT });
  graph.setDefaultEdgeLabel(() => ({}));
  const nodes = flow.nodes.filter((node) => kept.has(node.name));
  const keyOf = new Map(nodes.map((node, at) => [node.name, `n${at}`]));
  for (const node of nodes) {
    const width = Math.max(124, Math.min(node.name.length, NAME_CHARS) * CHAR + 40);
    graph.setNode(keyOf.get(node.name), { width, height: HEIGHT });
  }
  const edges = [...flow.edges.map((edge) => [...edge, false]), ...flow.order.map((edge) => [...edge, true])]
    .filter(([from, to]) => keyOf.has(from) && keyOf.has(to) && from !== to);
  for (const [from, to, times, order] of edges) {
    const [one, other] = [keyOf.get(from), keyOf.get(to)];
    if (!graph.hasEdge(one, other)) graph.setEdge(one, other, { times, order, width: 26, height: 14, labelpos: "c" });
  }
  dagre.layout(graph);
  const { width, height } = graph.graph();
  const title = `${flow.name}: ${plural(nodes.length, "node")}`;
  const marker = svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
    svg("path", { d: "M0 0L8 4L0 8z", class: "tip" }));
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title },
    svg("defs", {}, marker),
    graph.edges().map((edge) => drawEdge(graph.edge(edge))),
    nodes.map((node) => drawNode(node, graph.node(keyOf.get(node.name)), total)));
}

function drawEdge({ points, times, order, x, y }) {
  const [first, ...rest] = points;
  const last = rest.pop();
  let path = `M${first.x} ${first.y}`;
  rest.forEach((point, at) => {
    const next = rest[at + 1] ?? last;
    const end = at + 1 < rest.length ? { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 } : last;
    path += `Q${point.x} ${point.y} ${end.x} ${end.y}`;
  });
  if (!rest.length) path += `L${last.x} ${last.y}`;
  const label = times > 1 ? svg("text", { class: "edge-label", x, y: y - 4, "text-anchor": "middle" }, `${count(times)}×`) : null;
  return svg("g", { class: order ? "edge order" : "edge" }, svg("path", { d: path, "marker-end": "url(#tip)" }), label);
}

function drawNode(node, { x, y, width, height }, total) {
  const share = node.seconds / total;
  const failed = node.errors > 0;
  const name = node.name.length > NAME_CHARS ? `${node.name.slice(0, NAME_CHARS - 1)}…` : node.name;
  const told = `${node.name}: ${plural(node.executions, "execution")}, ${seconds(node.seconds)} in all, `
    + `${seconds(node.mean)} on average if computed at the first attempt, ${percent(share)} of the time of all nodes`
    + (failed ? `, ${plural(node.errors, "error")}` : "");
  const left = x - width / 2;
  const top = y - height / 2;
  return svg("g", { class: `node${failed ? " node-failed" : ""}${node.flow ? " node-flow" : ""}` },
    svg("title", {}, told),
    svg("rect", { class: "node-box", x: left, y: top, width, height, rx: 8 }),
    svg("rect", {
      class: "node-heat", x: left, y: top, width, height, rx: 8, style: { "fill-opacity": (0.04 + 0.66 * share).toFixed(3) },
    }),
    svg("text", { class: "node-name", x: left + 14, y: top + 24 }, name || "(no name)"),
    svg("text", { class: "node-note", x: left + 14, y: top + 43 },
      `${count(node.executions)}× · ${seconds(node.mean)}`),
    failed ? svg("g", {},
      svg("circle", { class: "node-errors", cx: left + width - 4, cy: top + 4, r: 11 }),
      svg("text", { class: "node-errors-text", x: left + width - 4, y: top + 8, "text-anchor": "middle" },
        node.errors > 99 ? "99+" : node.errors)) : null);
}
