// Finding nodes of the open graph by the ids that the server uses.

import { app } from "../../scripts/app.js";

// The node with an execution id, "5" or, inside a subgraph, "12:5"; null if it is not in the open graph.
export function nodeById(id) {
  let graph = graphOfPage();
  let node = null;
  for (const part of `${id}`.split(":")) {
    node = graph?.getNodeById?.(part) ?? null;
    graph = node?.subgraph;
  }
  return node;
}

// The graph as a whole, whichever subgraph is open.
export function graphOfPage() {
  return app.rootGraph ?? app.graph;
}

// Call `undo` once the node is removed, before what the page itself does then.
export function whenRemoved(node, undo) {
  const before = node.onRemoved;
  node.onRemoved = function (...args) {
    undo();
    return before?.apply(this, args);
  };
}
