// A panel on every Cache Stats node: live, but for the workers of Raylight, whose calls the page does not hear of.

import { app } from "../../scripts/app.js";
import { nodeById, nodesOf, whenRemoved } from "./graph.js";
import { Panel } from "./panel.js";
import { addView, shownTo } from "./store.js";
import { loadText } from "./text.js";

const OF_WORKERS = "PreciseCacheStatsRay";
const CLASSES = ["PreciseCacheStats", OF_WORKERS];
const SHOW_ALL = "show all samplers"; // the node's property behind the panel's checkbox
const SIZE = [340, 228]; // the least width and height

const panels = new WeakMap(); // node -> Panel; weak, so that a node that never enters a graph is freed with its panel

function draw(node) {
  const isAll = node.properties?.[SHOW_ALL] === true;
  const shown = shownTo((id) => isAll || nodeById(id) === node);
  panels.get(node).show(shown.runs, shown.report, isAll);
  return shown;
}

// Draws every panel; returns whether one of them lacks a run or the end of one.
function drawAll() {
  return [...nodesOf(CLASSES)].map(draw).some((shown) => !shown.runs.length || shown.isOpen);
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
    addView(drawAll);
  },

  nodeCreated(node) {
    if (!CLASSES.includes(node.comfyClass)) return;
    const panel = new Panel((isAll) => {
      node.properties[SHOW_ALL] = isAll;
      draw(node);
    }, node.comfyClass === OF_WORKERS);
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
});
