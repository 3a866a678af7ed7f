// A live panel on every Cache Stats node.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { restoreBadges } from "./badges.js";
import { onCalls, onExecuted } from "./feed.js";
import { isOfThisGraph, nodeById, nodesOf, whenRemoved } from "./graph.js";
import { Panel } from "./panel.js";
import { shownTo, storeCalls, storeReports } from "./store.js";
import { loadText } from "./text.js";

const CLASS = "PreciseCacheStats";
const SHOW_ALL = "show all samplers"; // the node's property behind the panel's checkbox
const SIZE = [340, 200]; // at least
const HISTORY = 8; // prompts looked through for the last report

const panels = new WeakMap(); // node -> Panel; a node that never gets into a graph goes with its panel

function draw(node) {
  const isAll = node.properties?.[SHOW_ALL] === true;
  const shown = shownTo((id) => isAll || nodeById(id) === node);
  panels.get(node).show(shown.runs, shown.report, isAll);
  return shown;
}

function drawAll() {
  return [...nodesOf([CLASS])].map(draw);
}

// After a graph was loaded or the connection was lost: the last reports of this graph, from the
// server's history.
async function restore() {
  if (!drawAll().some((shown) => !shown.runs.length || shown.isOpen)) return;
  try {
    const answer = await api.fetchApi(`/history?max_items=${HISTORY}`);
    // newest first
    for (const [promptId, { prompt, outputs }] of Object.entries(await answer.json()).reverse()) {
      if (!isOfThisGraph(prompt)) continue;
      for (const [id, output] of Object.entries(outputs ?? {})) {
        storeReports(promptId, id, output, prompt, true);
        restoreBadges(promptId, prompt, id, output);
      }
    }
    drawAll();
  } catch (error) {
    console.debug("PreciseCache: no history", error);
  }
}

app.registerExtension({
  name: "PreciseCache.CacheStats",

  init() {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL("./style.css", import.meta.url).href;
    document.head.append(style);
  },

  setup() {
    loadText().then(drawAll);
    onCalls((event, prompt) => {
      storeCalls(event, prompt);
      drawAll();
    });
    onExecuted((promptId, id, output, prompt) => {
      storeReports(promptId, id, output, prompt);
      drawAll();
    });
    api.addEventListener("reconnected", () => void restore());
  },

  nodeCreated(node) {
    if (node.comfyClass !== CLASS) return;
    const panel = new Panel((isAll) => {
      node.properties[SHOW_ALL] = isAll;
      draw(node);
    });
    panels.set(node, panel);
    const widget = node.addDOMWidget("precisecache_panel", "precisecache_panel", panel.element, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => SIZE[1],
    });
    widget.serialize = false;
    const size = node.computeSize();
    node.setSize([Math.max(SIZE[0], size[0]), size[1]]);
    whenRemoved(node, () => panel.remove());
    const { onConfigure } = node;
    node.onConfigure = function (...args) {
      const result = onConfigure?.apply(this, args);
      draw(node); // its properties are there now
      return result;
    };
  },

  // not awaited: the page must not wait for the server to open a graph
  afterConfigureGraph() {
    void restore();
  },
});
