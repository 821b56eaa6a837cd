// All that is known of one span.

import { colorOf, el } from "./dom.js";
import { duration, moment, percent } from "./format.js";

const MOST_LINKS = 200;

/** Lets a dotted name break after its dots. */
function breakable(name) {
  return name.split(/(?<=[._])/).flatMap((part) => [part, el("wbr")]);
}

/** Fills the panel beside the waterfall; `onGo` is told the index of another span to show. */
export class Details {
  constructor(spans, onGo) {
    this.spans = spans;
    this.onGo = onGo;
    this.element = el("aside", { class: "details", "aria-label": "Details of the span", tabindex: "0" });
  }

  show(index, trace, path) {
    const { spans } = this;
    const name = spans.name(index);
    const parent = spans.parents[index];
    const onPath = (path.get(index) ?? []).reduce((sum, [, length]) => sum + length, 0);
    const facts = [
      ["took", spans.took(index)],
      ["in itself", duration(this.#own(index))],
      ["began", `${duration(spans.starts[index])} after the trace`],
      ["at", moment(spans.base + BigInt(trace.start) + BigInt(Math.round(spans.starts[index])))],
      ["critical path", onPath ? `${duration(onPath)}, ${percent(onPath / Math.max(1, trace.length))} of the trace` : "not on it"],
      ["thread", spans.texts[spans.threads[index]]],
      ["service", spans.service(index)],
      ["kind", spans.kinds[spans.kindOf[index]]],
      ["parent", parent === -2 ? "elsewhere: it was not exported here" : parent === -1 ? "" : this.#go(parent)],
      ["span id", el("code", {}, spans.id(index))],
    ];
    this.element.replaceChildren(
      el("h3", {}, el("i", { class: `swatch ${spans.failed(index) ? "bar-failed" : `c${colorOf(name)}`}` }), name),
      spans.failed(index) || spans.messages[index] !== undefined
        ? el("p", { class: "message" }, spans.failed(index) ? "✕ " : "", spans.texts[spans.messages[index]] ?? "failed")
        : null ?? "",
      spans.expected(index) ? el("p", { class: "message" }, `◌ expected ${spans.expected(index)}`) : "",
      this.#list(facts.filter(([, value]) => value)),
      ...this.#section("Attributes", this.#list(spans.attributes(spans.setOf[index]))),
      ...this.#events(index),
      ...this.#links("Links", (spans.links[index] ?? []).map(([other, traceId, id]) =>
        other >= 0 ? this.#go(other) : el("span", { class: "note" }, `${spans.texts[id]}, in trace ${spans.texts[traceId]}, not here`))),
      ...this.#links("Linked from", (spans.backlinks.get(index) ?? []).map((other) => this.#go(other))),
      ...this.#section("Process", this.#list(spans.attributes(spans.resources[spans.resourceOf[index]][1]))),
    );
    this.element.scrollTop = 0;
  }

  /** Works out how long a span had no child under way. */
  #own(index) {
    const { spans } = this;
    const end = spans.starts[index] + spans.lasted(index);
    let covered = 0;
    let until = spans.starts[index];
    for (let child = index + 1; child < spans.ends[index]; child = spans.ends[child]) {
      const from = Math.max(until, spans.starts[child]);
      const to = Math.min(end, spans.starts[child] + spans.lasted(child));
      if (to > from) {
        covered += to - from;
        until = to;
      }
    }
    return spans.lasted(index) - covered;
  }

  #go(index) {
    const trace = this.spans.traceOf(index);
    return el("button", { type: "button", class: "go", title: trace.id, on: { click: () => this.onGo(index) } },
      this.spans.name(index), el("span", { class: "note" }, ` ${this.spans.took(index)}`));
  }

  #list(pairs) {
    return el("dl", {}, pairs.flatMap(([key, value]) => [el("dt", {}, breakable(key)), el("dd", {}, value)]));
  }

  #section(title, content) {
    return content.childElementCount ? [el("h4", {}, title), content] : [];
  }

  #events(index) {
    const events = this.spans.events[index] ?? [];
    if (!events.length) return [];
    return [el("h4", {}, "Events"), ...events.map(([name, time, set]) =>
      el("details", { class: "event", open: events.length < 4 },
        el("summary", {}, this.spans.texts[name], el("span", { class: "note" }, ` at ${duration(time - this.spans.starts[index])}`)),
        this.#list(this.spans.attributes(set))))];
  }

  #links(title, links) {
    if (!links.length) return [];
    const more = links.length > MOST_LINKS ? [el("li", { class: "note" }, `and ${links.length - MOST_LINKS} more`)] : [];
    return [el("h4", {}, `${title} (${links.length})`),
      el("ul", {}, links.slice(0, MOST_LINKS).map((link) => el("li", {}, link)), more)];
  }
}
