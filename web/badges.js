// A badge on LFCache and BlockCache nodes: what the last run reused, of how much.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { nodeById, whenRemoved } from "./graph.js";
import { readCalls } from "./runs.js";

const TEXTS = {
  PreciseCacheLFCache: (event) => `${event.reused}/${event.calls}`,
  PreciseCacheBlockCache: (event) => event.blocks && `${event.blocks.skipped}/${event.blocks.calls}`,
};

const badges = new Map(); // node -> {drawn, element}

function show(node, text) {
  const before = badges.get(node);
  before?.element.remove();
  const badge = { drawn: drawnBadge(text), element: document.createElement("span") };
  badges.set(node, badge);
  node.badges = [...(node.badges ?? []).filter((one) => one !== before?.drawn), badge.drawn].filter(Boolean);
  node.setDirtyCanvas?.(true, true);
  // the Vue renderer looks at badges once, when it makes the node's element
  badge.element.className = "precisecache-badge";
  badge.element.textContent = text;
  if (node.graph === app.canvas?.graph)
    document.querySelector(`[data-node-id="${CSS.escape(node.id)}"]`)?.append(badge.element);
}

// For the canvas; without text, and so invisible, while Vue renders the nodes.
function drawnBadge(text) {
  if (!window.LGraphBadge) return null;
  const badge = new window.LGraphBadge({ text, fgColor: "white", bgColor: "#0072B2" });
  return Object.defineProperty(badge, "text", { get: () => (window.LiteGraph?.vueNodesMode ? "" : text) });
}

app.registerExtension({
  name: "PreciseCache.Badges",

  async setup() {
    api.addEventListener("precisecache.calls", ({ detail }) => {
      const event = readCalls(detail);
      for (const node of (event?.nodes ?? []).map(nodeById)) {
        const text = TEXTS[node?.comfyClass]?.(event);
        if (text) show(node, text);
      }
    });
  },

  nodeCreated(node) {
    if (!(node.comfyClass in TEXTS)) return;
    whenRemoved(node, () => {
      const badge = badges.get(node);
      badge?.element.remove();
      node.badges = node.badges?.filter((one) => one !== badge?.drawn);
      badges.delete(node);
    });
  },
});
