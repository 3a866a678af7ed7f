// The strip of calls and the LFD curve of one run, as SVG that stretches with the panel.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 100; // of the curve's own coordinates

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
  return picture("strip", `${run.decisions}`, length(run), 1, boxes);
}

// The LFD of every call that has one, and the threshold if there is one (under a plan there is none).
export function curve(run) {
  const found = run.lfd.map((value, i) => [i + 0.5, value]).filter(([, value]) => value !== null);
  const top = 1.1 * Math.max(run.threshold ?? 0, ...found.map(([, value]) => value)) || 1;
  const y = (value) => (HEIGHT * (1 - value / top)).toFixed(2);
  const children = [];
  if (run.threshold !== null)
    children.push(shape("line", { class: "threshold", x1: 0, x2: length(run), y1: y(run.threshold), y2: y(run.threshold) }));
  if (found.length)
    children.push(shape("polyline", { class: "lfd", points: found.map(([x, value]) => `${x},${y(value)}`).join(" ") }));
  return picture("curve", "LFD", length(run), HEIGHT, children);
}

// Width in calls. A step makes one call or more, so a run that goes on gets at least as many as it has steps.
const length = (run) => Math.max(1, run.calls, run.isEnded ? 0 : run.steps);
