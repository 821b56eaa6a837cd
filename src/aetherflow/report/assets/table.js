// Tables that can be sorted, and whose rows can be chosen with the arrow keys.

import { el } from "./dom.js";
import { count } from "./format.js";

const MOST = 1000;

/**
 * Makes a table.
 *
 * @param {string} label What it shows.
 * @param {{title: string, value: (row: any) => any, show?: (row: any) => any, number?: boolean}[]} columns
 * @param {any[]} rows Of which the first 1,000 are shown.
 * @param {{onChoose?: (row: any) => void, sort?: number, descending?: boolean}} [options]
 */
export function table(label, columns, rows, { onChoose, sort = -1, descending = true } = {}) {
  const body = el("tbody");
  const order = { column: sort, descending };
  let chosen = null;
  const heads = columns.map((column, index) =>
    el("th", { scope: "col", class: column.number ? "number" : "" },
      el("button", { type: "button", class: "sort", on: { click: () => sortBy(index) } }, column.title,
        el("span", { class: "sort-sign", "aria-hidden": "true" }))),
  );

  function sortBy(index) {
    order.descending = order.column === index ? !order.descending : Boolean(columns[index].number);
    order.column = index;
    draw();
  }

  function draw() {
    const sorted = [...rows];
    if (order.column >= 0) {
      const { value } = columns[order.column];
      const sign = order.descending ? -1 : 1;
      sorted.sort((one, other) => sign * compare(value(one), value(other)));
    }
    heads.forEach((head, index) => {
      const current = index === order.column;
      head.setAttribute("aria-sort", current ? (order.descending ? "descending" : "ascending") : "none");
      head.querySelector(".sort-sign").textContent = current ? (order.descending ? " ↓" : " ↑") : "";
    });
    const lines = sorted.slice(0, MOST).map((row) =>
      el("tr", {}, columns.map((column) =>
        el("td", { class: column.number ? "number" : "" }, (column.show ?? column.value)(row)))),
    );
    body.replaceChildren(...lines);
    if (!onChoose || lines.length === 0) return;
    for (const [at, line] of lines.entries()) choosable(line, at, lines, sorted);
    mark(lines, Math.max(0, sorted.indexOf(chosen)));
  }

  function mark(lines, at) {
    lines.forEach((line, each) => {
      line.tabIndex = each === at ? 0 : -1;
      line.setAttribute("aria-selected", each === at);
    });
  }

  function choosable(line, at, lines, sorted) {
    const choose = (to) => {
      chosen = sorted[to];
      mark(lines, to);
      onChoose(chosen);
    };
    line.classList.add("choosable");
    line.addEventListener("click", () => choose(at));
    line.addEventListener("keydown", (event) => {
      const to = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: lines.length - 1 }[event.key];
      if (to === undefined || to < 0 || to >= lines.length) return;
      event.preventDefault();
      choose(to);
      lines[to].focus();
    });
  }

  draw();
  const more = rows.length > MOST ? el("p", { class: "note" }, `The first ${count(MOST)} of ${count(rows.length)}.`) : null;
  const grid = el("table", { "aria-label": label, role: onChoose ? "grid" : null },
    el("thead", {}, el("tr", {}, heads)), body);
  return el("div", { class: "table-box" }, grid, more);
}

function compare(one, other) {
  if (typeof one === "string") return one.localeCompare(String(other));
  return (one ?? -Infinity) - (other ?? -Infinity);
}
