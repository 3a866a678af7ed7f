// The titles and notes of the shipped graphs in the user's language, from when such a graph is opened. They are
// found by their English text, so what the user wrote stays.

import { app } from "../../scripts/app.js";
import { graphOfPage } from "./graph.js";
import { loadText, ofShippedGraph } from "./text.js";

const NOTES = ["MarkdownNote", "Note"];

// The graph and its subgraphs, each once.
function graphsIn(graph, found = new Set()) {
  if (!graph || found.has(graph)) return found;
  found.add(graph);
  for (const node of graph.nodes ?? []) graphsIn(node.subgraph, found);
  return found;
}

// The translation of a note, or null if one of its lines is not of a shipped graph.
function translated(note) {
  const lines = typeof note === "string" ? note.split("\n").map((line) => line && ofShippedGraph(line)) : [null];
  return lines.includes(null) ? null : lines.join("\n");
}

function translate() {
  const graphs = [...graphsIn(graphOfPage())];
  const nodes = graphs.flatMap((graph) => graph.nodes ?? []);
  const widgets = nodes.filter((node) => NOTES.includes(node.type)).map((node) => node.widgets?.[0]);
  const notes = widgets.map((widget) => [widget, translated(widget?.value)]).filter(([, text]) => text);
  // titles alone, such as "Plot", do not tell a shipped graph from one of the user's
  if (!notes.length) return;
  for (const [widget, text] of notes) if (widget.value !== text) widget.value = text;
  for (const titled of [...nodes, ...graphs.flatMap((graph) => graph.groups ?? [])]) {
    const title = ofShippedGraph(titled.title);
    if (title && titled.title !== title) titled.title = title;
  }
}

app.registerExtension({
  name: "PreciseCache.Notes",

  // Awaited by the page, which after this takes the graph as unchanged.
  async afterConfigureGraph() {
    const isOurs = (node) => node.comfyClass?.startsWith("PreciseCache");
    if (![...graphsIn(graphOfPage())].some((graph) => graph.nodes?.some(isOurs))) return;
    await loadText();
    translate();
  },
});
