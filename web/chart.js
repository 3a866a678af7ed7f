// The strip of calls and the LFD curve of one run, as SVG that stretches with the panel.

import { t } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 100; // of the curve's own coordinates
const MOST_HINTS = 400; // calls that tell about themselves when the pointer rests on them; more would slow the page

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function picture(kind, label, width, height, children) {
  const svg = shape("svg", {
    class: `precisecache-${kind}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none",
    role: "img", "aria-label": label,
  });
  svg.append(...children);
  return svg;
}

const KINDS = { C: "computed", R: "reused" };

// Boxes one call wide, coloured by the decision; neighbouring calls with the same decision share a box.
export function strip(run) {
  const boxes = [];
  let x = 0;
  for (const [same] of run.decisions.matchAll(/C+|R+|[^CR]+/g)) {
    boxes.push(shape("rect", { x, y: 0, width: same.length, height: 1, class: KINDS[same[0]] ?? "unknown" }));
    x += same.length;
  }
  return picture("strip", `${run.decisions}`, length(run), 1, [...boxes, ...hints(run, 1)]);
}

// What the report's letters say; see event.schema.json.
const REASONS = {
  w: () => t("computed in any case"),
  p: () => t("as planned"),
  u: () => t("not planned: nothing could be reused"),
  t: () => t("the accumulated LFD reached the threshold"),
  b: () => t("the accumulated LFD is below the threshold"),
  n: () => t("no LFD, or nothing to reuse"),
  o: () => t("outside of start_percent to end_percent"),
  a: () => t("LFCache stands aside"),
};

// What a call tells about itself: its number, sigma, LFD, and why it was computed or reused.
function hint(run, i) {
  const head = { C: () => t("call %1: computed", i + 1), R: () => t("call %1: reused", i + 1) }[run.decisions[i]];
  const lines = [head?.() ?? t("call %1", i + 1)];
  const why = REASONS[run.reasons[i]]?.();
  if (why) lines.push(why);
  if (run.sigmas[i] != null) lines.push(`sigma ${run.sigmas[i].toPrecision(3)}`);
  if (run.lfd[i] !== null && run.lfd[i] !== undefined) lines.push(`LFD ${run.lfd[i].toPrecision(3)}`);
  return lines.join("\n");
}

// One invisible box a call, which shows the call's hint when the pointer rests on it.
function hints(run, height) {
  if (run.decisions.length > MOST_HINTS) return [];
  return [...run.decisions].map((_, i) => {
    const box = shape("rect", { x: i, y: 0, width: 1, height, class: "call" });
    box.append(shape("title", {}));
    box.firstChild.textContent = hint(run, i);
    return box;
  });
}

// The LFD of each call. Those of reused calls without a trial lie evenly between their neighbours, as in the plot.
function betweenTrials(run) {
  const filled = [];
  let [last, missing] = [0, 0];
  for (const [i, decision] of [...run.decisions].entries()) {
    const lfd = run.lfd[i] ?? null;
    if (lfd === null && decision === "R") {
      missing += 1;
      filled.push(last);
      continue;
    }
    const value = lfd ?? 0;
    for (let j = 0; j < missing; j++) filled[i - missing + j] += ((value - last) * (j + 1)) / (missing + 1);
    filled.push(value);
    [last, missing] = [decision === "R" ? value : 0, 0];
  }
  return filled;
}

// The sum of LFDs since the last computed call; where it reached the threshold, what it was.
function accumulated(run) {
  let sum = 0;
  return betweenTrials(run).map((value, i) => {
    sum += value;
    if (run.decisions[i] === "R") return sum;
    const reached = run.reasons[i] === "t" ? sum : 0;
    sum = 0;
    return reached;
  });
}

// The LFD of every call that has one; where alpha decides also what has accumulated and its threshold.
export function curve(run) {
  const found = run.lfd.map((value, i) => [i + 0.5, value]).filter(([, value]) => value !== null);
  const sums = run.threshold === null ? [] : accumulated(run).map((value, i) => [i + 0.5, value]);
  const top = 1.1 * Math.max(run.threshold ?? 0, ...[...found, ...sums].map(([, value]) => value)) || 1;
  const y = (value) => (HEIGHT * (1 - value / top)).toFixed(2);
  const children = [];
  if (run.threshold !== null)
    children.push(shape("line", { class: "threshold", x1: 0, x2: length(run), y1: y(run.threshold), y2: y(run.threshold) }));
  const line = (kind, points) =>
    points.length && children.push(shape("polyline", { class: kind, points: points.map(([x, v]) => `${x},${y(v)}`).join(" ") }));
  line("accumulated", sums);
  line("lfd", found);
  return picture("curve", "LFD", length(run), HEIGHT, [...children, ...hints(run, HEIGHT)]);
}

// What the colours of the curve mean: [class, text] of each line, where it has more than one.
export function legend(run) {
  if (run.threshold === null) return [];
  return [["lfd", "LFD"], ["accumulated", t("accumulated LFD")], ["threshold", t("threshold")]];
}

// Width in calls. A step makes one call or more, so a run that goes on gets at least as many as it has steps.
const length = (run) => Math.max(1, run.calls, run.isEnded ? 0 : run.steps);
