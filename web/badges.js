// A badge on LFCache and BlockCache nodes: calls reused or block calls skipped in the last run, of all.

import { app } from "../../scripts/app.js";
import { nodeById, whenRemoved } from "./graph.js";
import { addView, runsOfThisGraph } from "./store.js";

const TEXTS = new Map([
  ["PreciseCacheLFCache", (run) => `${run.reused}/${run.calls}`],
  ["PreciseCacheBlockCache", (run) => run.blocks && `${run.blocks.skipped}/${run.blocks.calls}`],
]);

const badges = new WeakMap(); // node -> {text, drawn, element}

function drawAll() {
  const texts = new Map(); // node -> text of its last run
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
function drawnBadge(text) {
  if (!window.LGraphBadge) return null;
  const badge = new window.LGraphBadge({ text, fgColor: "white", bgColor: "#0072B2" });
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
    if (TEXTS.has(node.comfyClass)) whenRemoved(node, () => hide(node));
  },

  // Vue makes the elements of the graph's nodes after this
  afterConfigureGraph() {
    setTimeout(drawAll);
  },
});
