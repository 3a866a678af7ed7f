// A badge on LFCache and BlockCache nodes: what the last run reused, of how much.

import { app } from "../../scripts/app.js";
import { onCalls } from "./feed.js";
import { isOfThisGraph, nodeById, nodesOf, whenRemoved } from "./graph.js";
import { readReports } from "./runs.js";

const TEXTS = new Map([
  ["PreciseCacheLFCache", (event) => `${event.reused}/${event.calls}`],
  ["PreciseCacheBlockCache", (event) => event.blocks && `${event.blocks.skipped}/${event.blocks.calls}`],
]);
const MAX_TEXTS = 256;
const MAX_CHAIN = 64; // nodes between Cache Stats and the model's loader

// "prompt id/execution id" -> {prompt, id, text}, so that a graph loaded again has its badges
const texts = new Map();
const badges = new WeakMap(); // node -> {drawn, element}

function remember(promptId, prompt, id, text) {
  const key = `${promptId}/${id}`;
  texts.delete(key);
  texts.set(key, { prompt, id, text });
  if (texts.size > MAX_TEXTS) texts.delete(texts.keys().next().value);
}

function show(node, text) {
  hide(node);
  const badge = { drawn: drawnBadge(text), element: document.createElement("span") };
  badges.set(node, badge);
  if (badge.drawn) node.badges = [...(node.badges ?? []), badge.drawn];
  // nodes made by Vue look at `badges` once, so theirs is an element of its own
  badge.element.className = "precisecache-badge";
  badge.element.textContent = text;
  if (node.graph === app.canvas?.graph)
    document.querySelector(`[data-node-id="${CSS.escape(node.id)}"]`)?.append(badge.element);
  node.setDirtyCanvas?.(true, true);
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

// Nodes were made anew: give them the badges of the runs before.
function restore() {
  if (!nodesOf([...TEXTS.keys()]).size) return;
  // the last of a node's texts stays
  for (const { prompt, id, text } of texts.values()) {
    const node = isOfThisGraph(prompt, true) ? nodeById(id) : null;
    if (TEXTS.has(node?.comfyClass)) show(node, text);
  }
}

// Badges by a report of the history, for nodes that have none: those on the MODEL that a Cache Stats
// node got, followed back through the prompt.
export function restoreBadges(promptId, prompt, statsId, output) {
  const run = readReports(output)?.runs.at(-1);
  const modelOf = (id) => prompt?.[2]?.[id]?.inputs?.model?.[0];
  let id = modelOf(statsId);
  for (let steps = 0; run && id !== undefined && steps < MAX_CHAIN; steps++, id = modelOf(id)) {
    const node = nodeById(id);
    const text = TEXTS.get(node?.comfyClass)?.(run);
    if (!text || badges.has(node)) continue;
    remember(promptId, prompt, id, text);
    show(node, text);
  }
}

app.registerExtension({
  name: "PreciseCache.Badges",

  setup() {
    onCalls((event, prompt) => {
      for (const id of event.nodes) {
        const node = nodeById(id);
        const text = TEXTS.get(node?.comfyClass)?.(event);
        if (!text) continue;
        remember(event.promptId, prompt, id, text);
        show(node, text);
      }
    });
    // Vue makes the elements of a subgraph's nodes when it is opened
    app.canvas?.canvas?.addEventListener("litegraph:set-graph", () => setTimeout(restore));
  },

  nodeCreated(node) {
    if (TEXTS.has(node.comfyClass)) whenRemoved(node, () => hide(node));
  },

  afterConfigureGraph() {
    setTimeout(restore);
  },
});
