// What is known of the last prompts: runs by events until there are reports, and the reports.

import { isOfThisGraph } from "./graph.js";
import { readReports, withCalls } from "./runs.js";

const MAX_PROMPTS = 8;
const MAX_RUNS = 64;

// prompt id -> {number, prompt, runs, reports}; the newer, the higher its number
const prompts = new Map();
let last = 0;
let first = 0;

function promptOf(id, prompt, isOld = false) {
  if (!prompts.has(id)) {
    prompts.set(id, { number: isOld ? --first : ++last, prompt, runs: new Map(), reports: new Map() });
    if (prompts.size > MAX_PROMPTS) prompts.delete(prompts.keys().next().value);
  }
  return prompts.get(id);
}

// Take an event as of runs.js. prompt: its, as the server gives it, or null.
export function storeCalls(event, prompt) {
  const { runs } = promptOf(event.promptId, prompt);
  runs.set(event.run, withCalls(runs.get(event.run), event));
  if (runs.size > MAX_RUNS) runs.delete(runs.keys().next().value);
}

// Take what a Cache Stats node with this execution id has put out. isOld: as the history tells it, so
// that a prompt not heard of before is older than all others.
export function storeReports(promptId, id, output, prompt, isOld = false) {
  const found = readReports(output);
  if (found) promptOf(promptId, prompt, isOld).reports.set(id, found);
}

// What a panel shows: {runs, report, isOpen}. `owns(id)`: whether it shows the Cache Stats node with
// this execution id. Of the open graph's newest prompt in which there is something of it.
export function shownTo(owns) {
  for (const { prompt, runs, reports } of [...prompts.values()].sort((a, b) => b.number - a.number)) {
    if (!isOfThisGraph(prompt, true)) continue;
    const own = [...reports].filter(([id]) => owns(id)).map(([, found]) => found);
    // a run that a report tells of needs no events any more, also where they come late
    const live = [...runs.values()].filter((run) => run.stats.some((id) => owns(id) && !reports.has(id)));
    if (!own.length && !live.length) continue;
    const told = unique(own.flatMap((found) => found.runs), (run) => JSON.stringify(run.raw));
    return {
      runs: [...told, ...live],
      report: told.length || own.length ? { version: 1, runs: told.map((run) => run.raw) } : null,
      isOpen: live.some((run) => !run.isEnded),
    };
  }
  return { runs: [], report: null, isOpen: false };
}

function unique(values, keyOf) {
  return [...new Map(values.map((value) => [keyOf(value), value])).values()];
}
