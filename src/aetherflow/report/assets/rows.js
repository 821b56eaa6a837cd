// Lists of any length: only the rows that are in sight are elements.

import { el } from "./dom.js";

const SPARE = 6;
let lists = 0;

/** A list with one active row, told to assistive technology as the list's active descendant. */
export class Rows {
  /**
   * @param {object} options
   * @param {string} options.role What the list is: "listbox" or "treegrid".
   * @param {string} options.label What it is called.
   * @param {number} options.height Of a row, in pixels.
   * @param {(at: number) => HTMLElement} options.draw Makes the row at a place.
   * @param {(at: number) => void} options.onActive Is told that another row is active.
   * @param {(event: KeyboardEvent) => boolean} [options.onKey] May take a key for itself.
   * @param {() => void} [options.onDraw] Is told that rows were drawn.
   */
  constructor({ role, label, height, draw, onActive, onKey = () => false, onDraw = () => {} }) {
    lists += 1;
    this.id = `rows-${lists}`;
    this.options = { height, draw, onActive, onKey, onDraw, row: role === "treegrid" ? "row" : "option" };
    this.total = 0;
    this.active = -1;
    this.inside = el("div", { class: "rows-inside", role: "presentation" });
    this.element = el("div", {
      class: "rows", role, tabindex: "0", "aria-label": label,
      on: {
        keydown: (event) => this.#key(event),
        scroll: () => this.#soon(),
        click: (event) => {
          const row = event.target.closest("[data-at]");
          if (row) this.activate(Number(row.dataset.at));
        },
      },
    }, this.inside);
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  /** Shows so many rows, of which one is active; -1 for none. */
  show(total, active) {
    this.total = total;
    this.active = active;
    this.inside.style.height = `${total * this.options.height}px`;
    if (this.options.row === "row") this.element.setAttribute("aria-rowcount", total);
    this.draw();
  }

  activate(at) {
    if (at < 0 || at >= this.total) return;
    this.active = at;
    this.reveal(at);
    this.draw();
    this.options.onActive(at);
  }

  reveal(at) {
    const { height } = this.options;
    const { scrollTop, clientHeight } = this.element;
    if (at * height < scrollTop) this.element.scrollTop = at * height;
    else if ((at + 1) * height > scrollTop + clientHeight) this.element.scrollTop = (at + 1) * height - clientHeight;
  }

  #soon() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
    });
  }

  draw() {
    const { height, draw, row } = this.options;
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / height) - SPARE);
    const last = Math.min(this.total, Math.ceil((scrollTop + clientHeight) / height) + SPARE);
    const drawn = [];
    for (let at = first; at < last; at += 1) {
      const element = draw(at);
      element.id = `${this.id}-${at}`;
      element.dataset.at = at;
      element.classList.add("rows-row");
      element.setAttribute("role", row);
      element.setAttribute("aria-selected", at === this.active);
      element.setAttribute(row === "row" ? "aria-rowindex" : "aria-posinset", at + 1);
      if (row === "option") element.setAttribute("aria-setsize", this.total);
      element.style.transform = `translateY(${at * height}px)`;
      element.style.height = `${height}px`;
      drawn.push(element);
    }
    this.inside.replaceChildren(...drawn);
    if (this.active >= first && this.active < last) {
      this.element.setAttribute("aria-activedescendant", `${this.id}-${this.active}`);
    } else this.element.removeAttribute("aria-activedescendant");
    this.options.onDraw();
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || this.total === 0) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.options.height) - 1);
    const step = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity }[event.key];
    if (step !== undefined) this.activate(Math.min(this.total - 1, Math.max(0, Math.max(this.active, 0) + step)));
    else if (!this.options.onKey(event)) return;
    event.preventDefault();
  }
}
