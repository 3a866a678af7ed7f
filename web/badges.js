// A badge on LFCache and BlockCache nodes: the share of calls reused or of block calls skipped in the last run.

import { app } from "../../scripts/app.js";
import { nodeById, whenRemoved } from "./graph.js";
import { addView, runsOfThisGraph } from "./store.js";
import { t } from "./text.js";

const reusedOf = ({ reused, calls, aside }) =>
  calls ? { text: t("%1 % reused", percent(reused, calls)), isAside: aside.includes("lfcache") } : null;
const skippedOf = ({ blocks, aside }) =>
  blocks?.calls
    ? { text: t("%1 % skipped", percent(blocks.skipped, blocks.calls)), isAside: aside.includes("blockcache") }
    : null;

// node's class -> what its badge shows of a run, null where there is nothing to show
const BADGES = new Map([
  ["PreciseCacheLFCache", reusedOf],
  ["PreciseCacheLFCacheRay", reusedOf],
  ["PreciseCacheBlockCache", skippedOf],
  ["PreciseCacheBlockCacheRay", skippedOf],
]);

function percent(part, all) {
  return Math.round((100 * part) / all);
}

const badges = new WeakMap(); // node -> {text, isAside, drawn, element}

function drawAll() {
  const found = new Map(); // node -> the badge of its last run
  for (const run of runsOfThisGraph())
    for (const node of run.nodes.map(nodeById)) {
      const badge = BADGES.get(node?.comfyClass)?.(run);
      if (badge) found.set(node, badge);
    }
  for (const [node, badge] of found) show(node, badge);
}

function show(node, { text, isAside }) {
  const before = badges.get(node);
  if (before?.text !== text || before.isAside !== isAside) {
    hide(node);
    const badge = { text, isAside, drawn: drawnBadge(text, isAside), element: document.createElement("span") };
    badges.set(node, badge);
    if (badge.drawn) node.badges = [...(node.badges ?? []), badge.drawn];
    badge.element.className = isAside ? "precisecache-badge aside" : "precisecache-badge";
    badge.element.textContent = text;
    node.setDirtyCanvas?.(true, true);
  }
  // nodes rendered by Vue read `badges` only once, so they get an element of their own
  const { element } = badges.get(node);
  if (!element.isConnected && node.graph === app.canvas?.graph)
    document.querySelector(`[data-node-id="${CSS.escape(node.id)}"]`)?.append(element);
}

function hide(node) {
  const badge = badges.get(node);
  if (!badge) return;
  badge.element.remove();
  node.badges = node.badges?.filter((one) => one !== badge.drawn);
  badges.delete(node);
}

// The badge on the canvas. Its text is empty, which hides it, while Vue renders the nodes.
function drawnBadge(text, isAside) {
  if (!window.LGraphBadge) return null;
  const badge = new window.LGraphBadge({ text, fgColor: "white", bgColor: isAside ? "#777" : "#0072B2" });
  return Object.defineProperty(badge, "text", { get: () => (window.LiteGraph?.vueNodesMode ? "" : text) });
}

app.registerExtension({
  name: "PreciseCache.Badges",

  setup() {
    addView(drawAll);
    // Vue makes the elements of a subgraph's nodes when the subgraph is opened
    app.canvas?.canvas?.addEventListener("litegraph:set-graph", () => setTimeout(drawAll));
  },

  nodeCreated(node) {
    if (BADGES.has(node.comfyClass)) whenRemoved(node, () => hide(node));
  },

  // Vue makes the elements of the graph's nodes after this
  afterConfigureGraph() {
    setTimeout(drawAll);
  },
});
