// Greys out the inputs of LFCache that the chosen preset ignores, and says what is in force instead.

import { app } from "../../scripts/app.js";
import { loadText, t } from "./text.js";

const CLASSES = ["PreciseCacheLFCache", "PreciseCacheLFCacheRay"];

// {preset: {input that it ignores: the value in force as text, or null}}, from the node's definition
function inForce(node) {
  const { required } = node.constructor.nodeData?.input ?? {};
  return required?.preset?.[1]?.precisecache_in_force ?? {};
}

function update(node, labels) {
  const preset = node.widgets?.find((widget) => widget.name === "preset");
  // a link may bring any preset
  const isLinked = node.inputs?.some((input) => input.widget?.name === "preset" && input.link != null);
  const ignored = (!isLinked && inForce(node)[preset?.value]) || {};
  for (const [name, label] of labels) {
    const widget = node.widgets?.find((candidate) => candidate.name === name);
    if (!widget) continue;
    widget.disabled = name in ignored;
    widget.label = name in ignored ? `${label} (${ignored[name] ?? t("not used")})` : label;
  }
  node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
  name: "PreciseCache.Inputs",

  nodeCreated(node) {
    if (!CLASSES.includes(node.comfyClass)) return;
    const preset = node.widgets?.find((widget) => widget.name === "preset");
    if (!preset) return;
    const names = new Set(Object.values(inForce(node)).flatMap((ignored) => Object.keys(ignored)));
    const labels = node.widgets.filter(({ name }) => names.has(name)).map((w) => [w.name, w.label ?? w.name]);
    // has `object[name]` update the inputs after what it did before
    const updateAfter = (object, name) => {
      const before = object[name];
      object[name] = function (...args) {
        const result = before?.apply(this, args);
        update(node, labels);
        return result;
      };
    };
    updateAfter(preset, "callback");
    updateAfter(node, "onConfigure");
    updateAfter(node, "onConnectionsChange");
    loadText().then(() => update(node, labels));
  },
});
