// Quantities as people read them.

const UNITS = [
  [1e9, "s"],
  [1e6, "ms"],
  [1e3, "µs"],
  [1, "ns"],
];

/** Writes nanoseconds with three significant digits: "456 µs", "1.83 s", "12 min 05 s". */
export function duration(ns) {
  if (ns === null || ns === undefined || !Number.isFinite(ns)) return "–";
  const sign = ns < 0 ? "−" : "";
  const size = Math.abs(ns);
  if (size >= 600e9) {
    const seconds = Math.round(size / 1e9);
    return `${sign}${count(Math.floor(seconds / 60))} min ${String(seconds % 60).padStart(2, "0")} s`;
  }
  for (const [factor, unit] of UNITS) {
    const scaled = Number((size / factor).toPrecision(3));
    if (scaled >= 1) return `${sign}${scaled.toFixed(Math.max(0, 3 - String(Math.trunc(scaled)).length))} ${unit}`;
  }
  return "0 s";
}

/** Writes seconds as `duration` does; null where nothing is known. */
export function seconds(value) {
  return value === null || value === undefined ? "–" : duration(value * 1e9);
}

/** Writes a whole number in groups of three. */
export function count(value) {
  return Math.round(value).toLocaleString("en-US");
}

/** Writes a number of things: "1 span", "1,200 spans". */
export function plural(value, singular, several = `${singular}s`) {
  return `${count(value)} ${value === 1 ? singular : several}`;
}

/** Writes a share as percent. */
export function percent(share) {
  if (share === 0) return "0 %";
  const value = share * 100;
  return `${value < 0.1 ? "< 0.1" : value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

/** Writes a moment, given in nanoseconds since the epoch as a BigInt, in the reader's time zone. */
export function moment(ns) {
  const date = new Date(Number(ns / 1_000_000n));
  if (Number.isNaN(date.getTime())) return "at an unknown time";
  const two = (part) => String(part).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** Gives round values between two others, evenly spaced. */
export function ticks(low, high, wanted) {
  if (!(high > low)) return [low];
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(at);
  return found;
}
