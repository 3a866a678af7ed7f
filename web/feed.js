// Events of the prompts that were queued from the open graph, in order, as read by runs.js.

import { api } from "../../scripts/api.js";
import { isOfThisGraph, promptById } from "./graph.js";
import { readCalls } from "./runs.js";

// `listen(event)` for every `precisecache.calls` event that is sound and of the open graph. Others
// reach this page too: a program that names no client is heard by all.
export function onCalls(listen) {
  api.addEventListener("precisecache.calls", async ({ detail }) => {
    const event = readCalls(detail);
    if (event && (await isMine(event.promptId))) listen(event);
  });
}

// `listen(promptId, id, output)` for every node of the open graph that was executed.
export function onExecuted(listen) {
  api.addEventListener("executed", async ({ detail }) => {
    if (!detail?.output?.precisecache || !(await isMine(detail.prompt_id))) return;
    listen(detail.prompt_id, `${detail.display_node ?? detail.node}`, detail.output);
  });
}

async function isMine(promptId) {
  const prompt = await promptById(promptId);
  return prompt === null || isOfThisGraph(prompt);
}
