// Greys out the inputs of LFCache that the chosen preset ignores.

import { app } from "../../scripts/app.js";

const CLASS = "PreciseCacheLFCache";
const USED_BY = { alpha: ["custom", "paper"], share: ["budget"] }; // the presets that use an input

function update(node) {
  const widgetOf = (name) => node.widgets?.find((widget) => widget.name === name);
  const preset = widgetOf("preset");
  // a link may bring any preset
  const isLinked = node.inputs?.some((input) => input.widget?.name === "preset" && input.link != null);
  for (const [name, presets] of Object.entries(USED_BY)) {
    const widget = widgetOf(name);
    if (widget) widget.disabled = !!preset && !isLinked && !presets.includes(preset.value);
  }
  node.setDirtyCanvas?.(true, true);
}

// Has `node[name]` update the inputs after what it did before.
function updateAfter(node, object, name) {
  const before = object[name];
  object[name] = function (...args) {
    const result = before?.apply(this, args);
    update(node);
    return result;
  };
}

app.registerExtension({
  name: "PreciseCache.Inputs",

  nodeCreated(node) {
    if (node.comfyClass !== CLASS) return;
    const preset = node.widgets?.find((widget) => widget.name === "preset");
    if (!preset) return;
    updateAfter(node, preset, "callback");
    updateAfter(node, node, "onConfigure");
    updateAfter(node, node, "onConnectionsChange");
    update(node);
  },
});
