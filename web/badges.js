// A badge on LFCache and BlockCache nodes: what the last run reused, of how much.

import { app } from "../../scripts/app.js";
import { nodeById, whenRemoved } from "./graph.js";
import { addView, runsOfThisGraph } from "./store.js";

const TEXTS = new Map([
  ["PreciseCacheLFCache", (run) => `${run.reused}/${run.calls}`],
  ["PreciseCacheBlockCache", (run) => run.blocks && `${run.blocks.skipped}/${run.blocks.calls}`],
]);

const badges = new WeakMap(); // node -> {text, drawn, element}

function drawAll() {
  const texts = new Map(); // node -> text; of several runs the last one's
  for (const run of runsOfThisGraph())
    for (const node of run.nodes.map(nodeById)) {
      const text = TEXTS.get(node?.comfyClass)?.(run);
      if (text) texts.set(node, text);
    }
  for (const [node, text] of texts) show(node, text);
}

function show(node, text) {
  if (badges.get(node)?.text !== text) {
    hide(node);
    const badge = { text, drawn: drawnBadge(text), element: document.createElement("span") };
    badges.set(node, badge);
    if (badge.drawn) node.badges = [...(node.badges ?? []), badge.drawn];
    badge.element.className = "precisecache-badge";
    badge.element.textContent = text;
    node.setDirtyCanvas?.(true, true);
  }
  // nodes made by Vue look at `badges` once, so theirs is an element of its own
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

// For the canvas; without text, and so invisible, while Vue renders the nodes.
function drawnBadge(text) {
  if (!window.LGraphBadge) return null;
  const badge = new window.LGraphBadge({ text, fgColor: "white", bgColor: "#0072B2" });
  return Object.defineProperty(badge, "text", { get: () => (window.LiteGraph?.vueNodesMode ? "" : text) });
}

app.registerExtension({
  name: "PreciseCache.Badges",

  setup() {
    addView(drawAll);
    // Vue makes the elements of a subgraph's nodes when it is opened
    app.canvas?.canvas?.addEventListener("litegraph:set-graph", () => setTimeout(drawAll));
  },

  nodeCreated(node) {
    if (TEXTS.has(node.comfyClass)) whenRemoved(node, () => hide(node));
  },

  // and those of a graph's nodes after this
  afterConfigureGraph() {
    setTimeout(drawAll);
  },
});
