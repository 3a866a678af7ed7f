// Events of the prompts that were queued from the open graph, in order, as read by runs.js.

import { api } from "../../scripts/api.js";
import { isOfThisGraph, promptById } from "./graph.js";
import { readCalls } from "./runs.js";

// `listen(event, prompt)` for every `precisecache.calls` event that is sound and of the open graph. Others
// reach this page too: a program that names no client is heard by all.
export function onCalls(listen) {
  api.addEventListener("precisecache.calls", async ({ detail }) => {
    const event = readCalls(detail);
    if (!event) return;
    const prompt = await promptById(event.promptId);
    if (isOfThisGraph(prompt)) listen(event, prompt);
  });
}

// `listen(promptId, id, output, prompt)` for every node of the open graph that was executed.
export function onExecuted(listen) {
  api.addEventListener("executed", async ({ detail }) => {
    if (!detail?.output?.precisecache) return;
    const prompt = await promptById(detail.prompt_id);
    if (isOfThisGraph(prompt)) listen(detail.prompt_id, `${detail.display_node ?? detail.node}`, detail.output, prompt);
  });
}
