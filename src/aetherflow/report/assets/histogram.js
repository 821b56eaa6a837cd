// Histograms, drawn by uPlot on a logarithmic axis: buckets grow with what they hold.

import { el, themed } from "./dom.js";
import { count, ticks } from "./format.js";

const HEIGHT = 260;
const WHOLE = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((factor) => factor * 10 ** power)).flat();
const drawn = new Set();

/**
 * Draws a histogram.
 *
 * @param {[number, number, number][]} bars Low, high, and how many values are between.
 * @param {{show: (value: number) => string, marks?: [string, number | null][], label: string}} options
 */
export function histogram(bars, { show, marks = [], label }) {
  const box = el("div", { class: "plot", role: "img", "aria-label": `${label}; the numbers are in the table` });
  const smallest = Math.min(...bars.map(([, high]) => high).filter((high) => high > 0)) / 2 || 1e-9;
  const edges = [];
  const heights = [];
  for (const [low, high, held] of bars) {
    const from = Math.max(low, smallest);
    if (edges.length && edges.at(-1) < from) {
      edges.push(from);
      heights.push(0);
    }
    if (edges.length && edges.at(-1) >= from) {
      edges.pop();
      heights.pop();
    }
    edges.push(from, Math.max(high, from * 1.0001));
    heights.push(held, 0);
  }
  const room = (edges.at(-1) / edges[0]) ** 0.04;
  const range = [edges[0] / Math.max(room, 1.02), edges.at(-1) * Math.max(room, 1.02)];
  edges.unshift(range[0]);
  heights.unshift(0);
  const places = logTicks(...range);
  const make = () => {
    box.replaceChildren();
    const ink = themed("--ink-soft");
    const axis = { stroke: ink, grid: { stroke: themed("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const plot = new uPlot({
      width: Math.max(240, box.clientWidth), height: HEIGHT, legend: { show: false }, cursor: { show: false }, padding: [22, 12, 0, 0],
      scales: { x: { time: false, distr: 3, range: () => range }, y: { range: (_, __, most) => [0, most * 1.08 || 1] } },
      axes: [
        { ...axis, size: 30, splits: () => places, filter: (_, splits) => splits, values: (_, values) => values.map(show) },
        { ...axis, size: 56, incrs: WHOLE, values: (_, values) => values.map(count) },
      ],
      series: [{}, {
        stroke: themed("--accent"), width: 1.5, fill: themed("--accent-soft"), points: { show: false },
        paths: uPlot.paths.stepped({ align: 1 }),
      }],
      hooks: { draw: [(chart) => drawMarks(chart, marks, ink)] },
    }, [edges, heights], box);
    return plot;
  };
  let plot = null;
  const redraw = () => {
    plot?.destroy();
    plot = box.isConnected && box.clientWidth ? make() : null;
  };
  box.redraw = redraw;
  const watch = new ResizeObserver(() => {
    if (!box.isConnected) {
      plot?.destroy();
      watch.disconnect();
      drawn.delete(box);
    } else if (!plot) redraw();
    else if (plot.width !== box.clientWidth) plot.setSize({ width: Math.max(240, box.clientWidth), height: HEIGHT });
  });
  watch.observe(box);
  drawn.add(box);
  return box;
}

/** Draws every histogram anew, in the colours of another theme. */
export function redrawHistograms() {
  for (const box of drawn) box.redraw();
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of [1, 2, 5]) {
      const value = factor * 10 ** power;
      if (value >= low && value <= high) found.push(value);
    }
  }
  if (found.length < 3) return ticks(low, high, 4);
  return found.length > 8 ? found.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9) : found;
}

function drawMarks(chart, marks, ink) {
  const { ctx, bbox } = chart;
  const ratio = window.devicePixelRatio || 1;
  ctx.save();
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.fillStyle = ctx.strokeStyle = ink;
  ctx.lineWidth = ratio;
  ctx.setLineDash([3 * ratio, 3 * ratio]);
  let free = -Infinity;
  for (const [name, value] of marks) {
    if (value === null || value === undefined || value <= 0) continue;
    const x = chart.valToPos(value, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const at = Math.max(free, x - ctx.measureText(name).width / 2);
    ctx.fillText(name, at, bbox.top - 6 * ratio);
    free = at + ctx.measureText(name).width + 8 * ratio;
  }
  ctx.restore();
}
