// The data of the page: columns of numbers, unpacked into what is asked for.

import { colorOf } from "./dom.js";
import { duration } from "./format.js";

const ID = 16;

/** Gives the bytes that base64 stands for. */
function decoded(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) bytes[at] = text.charCodeAt(at);
  return bytes;
}

/** Unpacks the JSON that is in the page, gzipped. */
export async function unpack(text) {
  const bytes = decoded(text.trim());
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** All spans and traces. */
export class Spans {
  constructor(data) {
    const { spans, traces } = data;
    this.texts = data.texts;
    this.base = BigInt(data.base);
    this.kinds = data.kinds;
    this.pairs = data.pairs;
    this.sets = data.sets;
    this.resources = data.resources;
    this.idText = data.ids;
    this.names = spans.name;
    this.parents = Int32Array.from(spans.parent);
    this.starts = Float64Array.from(spans.start);
    this.lengths = Float64Array.from(spans.length);
    this.statuses = Uint8Array.from(spans.status);
    this.kindOf = Uint8Array.from(spans.kind);
    this.threads = spans.thread;
    this.resourceOf = spans.resource;
    this.setOf = spans.set;
    this.events = data.events;
    this.links = data.links;
    this.messages = data.messages;
    this.critical = data.critical;
    this.traces = traces.map(([id, name, start, length, count, errors, first, held, leftOut, kind], index) => ({
      index, id, name: this.texts[name], start, length, count, errors, first, held, leftOut, kind,
    }));
    this.runs = this.traces.filter((trace) => trace.kind === 1);
    if (!this.runs.length) this.runs = this.traces.filter((trace) => trace.kind === 0);
    if (!this.runs.length) this.runs = this.traces;
    this.#measure();
    for (const number of new Set(this.names)) colorOf(this.texts[number] || "(no name)");
    this.backlinks = new Map();
    for (const [from, links] of Object.entries(this.links)) {
      for (const [to] of links) {
        if (to < 0) continue;
        if (!this.backlinks.has(to)) this.backlinks.set(to, []);
        this.backlinks.get(to).push(Number(from));
      }
    }
  }

  /** Works out how deep each span is, and where what is below it ends; parents stand before their children. */
  #measure() {
    const total = this.parents.length;
    this.depths = new Int32Array(total);
    this.ends = new Int32Array(total);
    for (let index = 0; index < total; index += 1) {
      const parent = this.parents[index];
      this.depths[index] = parent < 0 ? 0 : this.depths[parent] + 1;
      this.ends[index] = index + 1;
    }
    for (let index = total - 1; index >= 0; index -= 1) {
      const parent = this.parents[index];
      if (parent >= 0 && this.ends[index] > this.ends[parent]) this.ends[parent] = this.ends[index];
    }
  }

  get length() {
    return this.parents.length;
  }

  name(index) {
    return this.texts[this.names[index]] || "(no name)";
  }

  id(index) {
    return this.idText.slice(index * ID, (index + 1) * ID);
  }

  failed(index) {
    return this.statuses[index] === 2;
  }

  /** The class of an expected exception that a span ended with, which is no error; "" if it did not. */
  expected(index) {
    const about = new Map(this.attributes(this.setOf[index]));
    const results = [about.get("aetherflow.node.result"), about.get("aetherflow.run.result")];
    return results.includes("expected") ? about.get("aetherflow.expected.type") ?? "exception" : "";
  }

  /** Nanoseconds that a span lasted; 0 where its end was not exported. */
  lasted(index) {
    return Math.max(0, this.lengths[index]);
  }

  took(index) {
    return this.lengths[index] < 0 ? "unfinished" : duration(this.lengths[index]);
  }

  service(index) {
    return this.texts[this.resources[this.resourceOf[index]][0]];
  }

  attributes(set) {
    return this.sets[set].map((pair) => this.pairs[pair].map((text) => this.texts[text]));
  }

  traceOf(index) {
    let [low, high] = [0, this.traces.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.traces[middle].first <= index) low = middle;
      else high = middle - 1;
    }
    return this.traces[low];
  }

  /** Gives the stretches of a trace's critical path by span: pairs of beginning and length. */
  path(trace) {
    const found = new Map();
    const flat = this.critical[trace.index];
    for (let at = 0; at < flat.length; at += 3) {
      if (!found.has(flat[at])) found.set(flat[at], []);
      found.get(flat[at]).push([flat[at + 1], flat[at + 2]]);
    }
    return found;
  }
}
