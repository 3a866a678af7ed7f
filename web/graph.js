// Finds nodes of the open graph by the server's ids, and says which prompts belong to that graph.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

// The graph as a whole, whichever subgraph is open.
export function graphOfPage() {
  return app.rootGraph ?? app.graph;
}

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

// Every node of these classes in the open graph and its subgraphs, once.
export function nodesOf(classes, graph = graphOfPage(), found = new Set()) {
  for (const node of graph?.nodes ?? []) {
    if (classes.includes(node.comfyClass)) found.add(node);
    if (node.subgraph) nodesOf(classes, node.subgraph, found);
  }
  return found;
}

// Calls `undo` when the node is removed, before the page's own handler.
export function whenRemoved(node, undo) {
  const before = node.onRemoved;
  node.onRemoved = function (...args) {
    undo();
    return before?.apply(this, args);
  };
}

// Whether a prompt, in the form of the server's queue and history, was queued from the open graph. They are
// compared by their ids or, where one has none (a file in API format), by their nodes. mayLackNodes: nodes may
// have been removed from the graph since. A prompt that the server does not know (null) counts as the graph's.
export function isOfThisGraph(prompt, mayLackNodes = false) {
  const [mine, its] = [graphOfPage()?.id, prompt?.[3]?.extra_pnginfo?.workflow?.id];
  if (isId(mine) && isId(its)) return mine === its;
  return Object.entries(prompt?.[2] ?? {}).every(([id, node]) => {
    const found = nodeById(id);
    return found ? found.comfyClass === node?.class_type : mayLackNodes;
  });
}

const isId = (id) => typeof id === "string" && /[1-9a-f]/.test(id);

const MAX_PROMPTS = 32;
const prompts = new Map(); // id -> promise of the prompt, or of null where the server does not know it

// The prompt with this id; the server is asked only once.
export function promptById(id) {
  if (!prompts.has(id)) {
    prompts.set(id, fetchPrompt(id));
    if (prompts.size > MAX_PROMPTS) prompts.delete(prompts.keys().next().value);
  }
  return prompts.get(id);
}

async function fetchPrompt(id) {
  try {
    const queue = await (await api.fetchApi("/queue")).json();
    const waiting = [...(queue.queue_running ?? []), ...(queue.queue_pending ?? [])];
    const found = waiting.find((prompt) => prompt?.[1] === id);
    return found ?? (await (await api.fetchApi(`/history/${encodeURIComponent(id)}`)).json())[id]?.prompt ?? null;
  } catch (error) {
    console.debug("PreciseCache: no prompt", error);
    return null;
  }
}
