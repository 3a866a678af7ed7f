// What is known of the sampler runs of the last prompts: from `precisecache.calls` while they go on, from the
// reports at the end. The page's only listener for both; the panels and the badges are views of it.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isOfThisGraph, promptById } from "./graph.js";
import { readCalls, readReports, withCalls } from "./runs.js";

const MAX_PROMPTS = 8;
const MAX_RUNS = 256; // of a prompt; the server's reports tell of 64
const HISTORY = 8; // prompts looked through for the last reports

// prompt id -> {number, prompt, runs, reports}; the newer, the higher its number.
// runs: run id -> run as of runs.js, `isReported` where a report told of it. reports: id of a Cache Stats node ->
// ids of the runs that its report tells of.
const prompts = new Map();
let last = 0;
let first = 0;

const views = new Set();

// `draw()` is called after every change and when a graph was opened. It returns whether it lacks something that
// the server's history may have.
export function addView(draw) {
  views.add(draw);
}

const drawViews = () => [...views].map((draw) => draw());

// What a panel shows: {runs, report, isOpen}. `owns(id)`: whether it shows the Cache Stats node with
// this execution id. Of the open graph's newest prompt in which there is something of it.
export function shownTo(owns) {
  for (const { runs, reports } of promptsOfThisGraph().reverse()) {
    const own = [...reports].filter(([id]) => owns(id));
    const told = own.flatMap(([, ids]) => ids);
    const live = [...runs].filter(([, run]) => run.stats.some((id) => owns(id) && !reports.has(id))).map(([id]) => id);
    if (!own.length && !live.length) continue;
    const runsOf = (ids) => [...new Set(ids)].map((id) => runs.get(id)).filter(Boolean);
    const shown = runsOf([...told, ...live]);
    return {
      runs: shown,
      report: own.length ? reportOf(runsOf(told)) : null,
      isOpen: shown.some((run) => !run.isEnded),
    };
  }
  return { runs: [], report: null, isOpen: false };
}

// The report that a server would give of these runs alone.
function reportOf(runs) {
  return { version: runs.every((run) => run.id) ? 2 : 1, runs: runs.map((run) => run.raw) };
}

// All runs of the open graph, oldest first.
export function runsOfThisGraph() {
  return promptsOfThisGraph().flatMap(({ runs }) => [...runs.values()]);
}

// Oldest first.
function promptsOfThisGraph() {
  return [...prompts.values()].filter(({ prompt }) => isOfThisGraph(prompt, true)).sort((a, b) => a.number - b.number);
}

function promptOf(id, prompt, isOld = false) {
  if (!prompts.has(id)) {
    prompts.set(id, { number: isOld ? --first : ++last, prompt, runs: new Map(), reports: new Map() });
    if (prompts.size > MAX_PROMPTS) prompts.delete(prompts.keys().next().value);
  }
  return prompts.get(id);
}

function keep(runs, id, run) {
  runs.set(id, run);
  if (runs.size > MAX_RUNS) runs.delete(runs.keys().next().value);
}

function storeCalls(event, prompt) {
  const { runs } = promptOf(event.promptId, prompt);
  const before = runs.get(event.id);
  // a report is the last word, also where an event comes after it
  keep(runs, event.id, before?.isReported ? { ...before, stats: event.stats } : withCalls(before, event));
}

// Take what a Cache Stats node with this execution id has put out. isOld: as the history tells it, so
// that a prompt not heard of before is older than all others.
function storeReports(promptId, id, output, prompt, isOld = false) {
  const found = readReports(output);
  if (!found) return;
  const { runs, reports } = promptOf(promptId, prompt, isOld);
  // runs of version 1 have no id: their place in this node's report stands for it
  const keys = found.map((run, index) => run.id ?? `${id} ${index}`);
  keys.forEach((key, index) =>
    keep(runs, key, { ...found[index], stats: runs.get(key)?.stats ?? [], isReported: true }),
  );
  reports.set(id, keys);
}

// After a graph was opened or the connection was lost: the last reports of this graph, if a view lacks them.
async function restore() {
  if (!drawViews().some(Boolean)) return;
  try {
    const answer = await api.fetchApi(`/history?max_items=${HISTORY}`);
    // newest first
    for (const [promptId, { prompt, outputs }] of Object.entries(await answer.json()).reverse()) {
      if (!isOfThisGraph(prompt)) continue;
      for (const [id, output] of Object.entries(outputs ?? {})) storeReports(promptId, id, output, prompt, true);
    }
    drawViews();
  } catch (error) {
    console.debug("PreciseCache: no history", error);
  }
}

// Call `take(prompt)` and draw, if the prompt with this id was queued from the open graph. Others are heard
// too: a program that names no client is heard by every page.
async function takeOfThisGraph(promptId, take) {
  const prompt = await promptById(promptId);
  if (!isOfThisGraph(prompt)) return;
  take(prompt);
  drawViews();
}

app.registerExtension({
  name: "PreciseCache.Store",

  setup() {
    api.addEventListener("precisecache.calls", async ({ detail }) => {
      const event = readCalls(detail);
      if (event) await takeOfThisGraph(event.promptId, (prompt) => storeCalls(event, prompt));
    });
    api.addEventListener("executed", async ({ detail }) => {
      if (!detail?.output?.precisecache) return;
      const { prompt_id: promptId, output } = detail;
      const id = `${detail.display_node ?? detail.node}`;
      await takeOfThisGraph(promptId, (prompt) => storeReports(promptId, id, output, prompt));
    });
    api.addEventListener("reconnected", () => void restore());
  },

  // not awaited: the page must not wait for the server to open a graph
  afterConfigureGraph() {
    void restore();
  },
});
