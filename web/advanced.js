// Folds the advanced inputs of the caching nodes away in the classic renderer, as the newer one does by itself.

import { app } from "../../scripts/app.js";
import { loadText, t } from "./text.js";

const CLASSES = [
  "PreciseCacheLFCache", "PreciseCacheBlockCache", "PreciseCacheLFCacheRay", "PreciseCacheBlockCacheRay",
];
const SETTING = "Comfy.Node.AlwaysShowAdvancedWidgets";

const hasLink = (node) =>
  node.inputs?.some(
    (input) => input.link != null && node.widgets.find((w) => w.name === input.widget?.name)?.advanced,
  );

function toggle(node) {
  node.toggleAdvanced();
  if (!node.showAdvanced) node.setSize([node.size[0], node.computeSize()[1]]);
}

app.registerExtension({
  name: "PreciseCache.Advanced",

  nodeCreated(node) {
    if (!CLASSES.includes(node.comfyClass) || typeof node.getLayoutWidgets !== "function") return;
    if (app.extensionManager?.setting?.get(SETTING)) return;
    const advanced = node.widgets?.filter((widget) => widget.options?.advanced) ?? [];
    if (!advanced.length) return;
    for (const widget of advanced) widget.advanced = true;
    const options = { serialize: false, canvasOnly: true };
    const button = node.addWidget("button", "precisecache_advanced", "", () => toggle(node), options);
    button.serialize = false;
    loadText().then(() => (button.label = t("Advanced inputs")));
    node.getLayoutWidgets = function () {
      return this.widgets?.filter((widget) => this.isWidgetVisible(widget)) ?? []; // or they keep their room
    };
    // an input that is linked stays in sight
    const { onConfigure } = node;
    node.onConfigure = function (...args) {
      const result = onConfigure?.apply(this, args);
      if (hasLink(this)) this.showAdvanced = true;
      return result;
    };
    node.setSize([node.size[0], node.computeSize()[1]]);
  },
});
