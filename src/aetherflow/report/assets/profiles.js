// Profiles as flame graphs: boxes that can be looked into, and the table of functions.

import { colorOf, el, empty } from "./dom.js";
import { count, percent, plural, seconds } from "./format.js";
import { table } from "./table.js";

const ROW = 22;
const NARROWEST = 0.0015;

/** Shows the profiles of each node. */
export function profilePanel(profiles, onGo) {
  if (!profiles.length) {
    return empty("No profiles", "@node(profile=True) or AETHER_PROFILE=on takes them; they are then events on the node's spans.");
  }
  const shown = el("div");
  const picker = el("select", {
    id: "profile-picker",
    on: { change: () => shown.replaceChildren(...profileView(profiles[picker.selectedIndex], onGo)) },
  }, profiles.map((profile) => el("option", {}, `${profile.name} (${plural(profile.taken, "profile")})`)));
  shown.append(...profileView(profiles[0], onGo));
  return el("div", { class: "padded" },
    el("div", { class: "tools" }, el("label", { for: "profile-picker" }, "Node"), picker), shown);
}

function profileView(profile, onGo) {
  const facts = [plural(profile.taken, "profile"), profile.profilers.join(", ")];
  if (profile.truncated) facts.push(`${count(profile.truncated)} cut to their largest functions`);
  if (profile.otherThreads) facts.push(`${count(profile.otherThreads)} may hold other threads' calls`);
  const skipped = profile.skipped.map(([reason, times]) => el("li", {}, `${count(times)}× not taken: ${reason}`));
  const kind = profile.withStacks
    ? "Who called whom, from the files written for speedscope: width is time."
    : "An event has no callers: the node's functions by the time in themselves. With speedscope=True in the policy, stacks are shown.";
  const first = profile.spans.find((index) => index >= 0);
  return [
    el("p", { class: "note" }, facts.join(" · "), " ",
      first === undefined ? null : el("button", { type: "button", class: "go", on: { click: () => onGo(first) } }, "show the first span")),
    skipped.length ? el("ul", { class: "plain" }, skipped) : "",
    profile.taken ? el("p", { class: "note" }, kind) : "",
    profile.taken ? flame(profile.frames) : "",
    profile.functions.length ? table("Functions", [
      { title: "function", value: ([name]) => name, show: ([name]) => el("code", {}, name) },
      { title: "self", value: (row) => row[1], show: (row) => seconds(row[1]), number: true },
      { title: "cumulative", value: (row) => row[2], show: (row) => seconds(row[2]), number: true },
      { title: "calls", value: (row) => row[3], show: (row) => count(row[3]), number: true },
    ], profile.functions, { sort: 2 }) : "",
  ];
}

/** Draws frames, given as depth, name, seconds and start, parents before children; the chosen one fills the width. */
function flame(frames) {
  const told = el("p", { class: "flame-told", role: "status" });
  const box = el("div", { class: "flame", role: "tree", "aria-label": "Flame graph" });
  const deepest = frames.reduce((most, [depth]) => Math.max(most, depth), 0);
  box.style.height = `${(deepest + 1) * ROW}px`;
  let root = 0;
  let boxes = [];
  const within = (frame) => frame[3] < frames[root][3] + frames[root][2] && frame[3] + frame[2] > frames[root][3];

  function tell(at) {
    const [, name, time] = frames[at];
    told.textContent = `${name} — ${seconds(time)}, ${percent(time / (frames[0][2] || 1))} of all`;
  }

  function draw(focused) {
    const [, , whole, start] = frames[root];
    boxes = [];
    frames.forEach((frame, at) => {
      const [depth, name, time, from] = frame;
      const left = Math.max(0, (from - start) / (whole || 1));
      const width = Math.min(1, (from - start + time) / (whole || 1)) - left;
      if (!within(frame) || (at !== root && width < NARROWEST)) return;
      boxes.push(el("div", {
        class: `frame f${colorOf(name)}`, role: "treeitem", "aria-level": depth + 1, "aria-selected": at === root,
        "aria-label": `${name}, ${seconds(time)}`, tabindex: at === focused ? "0" : "-1", "data-frame": at,
        style: { left: `${left * 100}%`, width: `${width * 100}%`, top: `${depth * ROW}px` },
      }, name));
    });
    box.replaceChildren(...boxes);
  }

  const frameOf = (element) => Number(element.dataset.frame);
  function zoom(at) {
    root = at === root ? 0 : at;
    draw(at);
    box.querySelector(`[data-frame="${at}"]`)?.focus();
  }
  box.addEventListener("click", (event) => event.target.dataset.frame && zoom(frameOf(event.target)));
  box.addEventListener("pointerover", (event) => event.target.dataset.frame && tell(frameOf(event.target)));
  box.addEventListener("focusin", (event) => tell(frameOf(event.target)));
  box.addEventListener("keydown", (event) => {
    const here = boxes.indexOf(event.target);
    const level = (element) => Number(element.getAttribute("aria-level"));
    let to;
    if (event.key === "ArrowDown") to = level(boxes[here + 1] ?? boxes[here]) > level(boxes[here]) ? here + 1 : undefined;
    else if (event.key === "ArrowUp") to = boxes.findLastIndex((each, at) => at < here && level(each) < level(boxes[here]));
    else if (event.key === "ArrowRight") to = boxes.findIndex((each, at) => at > here && level(each) === level(boxes[here]));
    else if (event.key === "ArrowLeft") to = boxes.findLastIndex((each, at) => at < here && level(each) === level(boxes[here]));
    else if (event.key === "Enter" || event.key === " ") zoom(frameOf(event.target));
    else if (event.key === "Escape") zoom(0);
    else return;
    event.preventDefault();
    if (to === undefined || to < 0) return;
    for (const each of boxes) each.tabIndex = -1;
    boxes[to].tabIndex = 0;
    boxes[to].focus();
  });
  draw(0);
  tell(0);
  return el("div", {}, told, box);
}
