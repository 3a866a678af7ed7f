// The sampler runs of the last prompts: from `precisecache.calls` events during sampling, from the reports
// at the end. This is the page's only listener for both; the panels and the badges are views of it.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isOfThisGraph, promptById } from "./graph.js";
import { readCalls, readReports, withCalls } from "./runs.js";

const MAX_PROMPTS = 8;
const MAX_RUNS = 256; // of a prompt; the server keeps reports of 64 runs
const HISTORY = 8; // prompts in the server's history that are searched for the last reports

// prompt id -> {number, prompt, runs, reports}; the newer the prompt, the higher its number.
// runs: run id -> run in the form of runs.js, with `isReported` if a report contains it. reports: id of a Cache
// Stats node -> ids of the runs in its report.
const prompts = new Map();
let last = 0;
let first = 0;

const views = new Set();

// `draw()` is called after every change and after a graph was opened. It returns whether the view lacks something
// that the server's history may have.
export function addView(draw) {
  views.add(draw);
}

const drawViews = () => [...views].map((draw) => draw());

// What a panel shows: {runs, report, isOpen}, each run with the `previous` one of its sampler or null, from the newest prompt of the open graph that has something for it.
// `owns(id)`: whether the panel shows the Cache Stats node with this execution id.
export function shownTo(owns) {
  const newest = promptsOfThisGraph().reverse();
  for (const [index, { runs, reports }] of newest.entries()) {
    const own = [...reports].filter(([id]) => owns(id));
    const told = own.flatMap(([, ids]) => ids);
    const live = [...runs].filter(([, run]) => run.stats.some((id) => owns(id) && !reports.has(id))).map(([id]) => id);
    if (!own.length && !live.length) continue;
    const runsOf = (ids) => [...new Set(ids)].map((id) => runs.get(id)).filter(Boolean);
    const shown = runsOf([...told, ...live]);
    const older = newest.slice(index + 1).flatMap((prompt) => [...prompt.runs.values()].reverse());
    return {
      runs: shown.map((run) => ({ ...run, previous: older.find((other) => isOfSameSampler(run, other)) ?? null })),
      report: own.length ? reportOf(runsOf(told)) : null,
      isOpen: shown.some((run) => !run.isEnded),
    };
  }
  return { runs: [], report: null, isOpen: false };
}

// Whether a run has ended, and is one of the sampler of another run.
const isOfSameSampler = (run, other) => other.seconds !== null && other.sampler && other.sampler === run.sampler;

// The report that the server would write if there were only these runs.
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
  // a report is final, even if an event arrives after it
  keep(runs, event.id, before?.isReported ? { ...before, stats: event.stats } : withCalls(before, event));
}

// Stores the output of the Cache Stats node with this execution id. isOld: it comes from the history, so a
// prompt that is not in the store yet is older than all others.
function storeReports(promptId, id, output, prompt, isOld = false) {
  const found = readReports(output);
  if (!found) return;
  const { runs, reports } = promptOf(promptId, prompt, isOld);
  // runs of version 1 have no id: their place in this node's report serves as one
  const keys = found.map((run, index) => run.id ?? `${id} ${index}`);
  keys.forEach((key, index) =>
    keep(runs, key, { ...found[index], stats: runs.get(key)?.stats ?? [], isReported: true }),
  );
  reports.set(id, keys);
}

// Whether a prompt comes from another page while the open graph is not saved: everyone who opens a template opens a graph
// with the same id.
function isAnothersRun(prompt) {
  const isUnsaved = app.extensionManager?.workflow?.activeWorkflow?.isPersisted === false;
  return isUnsaved && prompt?.[3]?.client_id !== api.clientId;
}

// After a graph was opened or the page reconnected: fetches the last reports of this graph, if a view lacks them.
async function restore() {
  if (!drawViews().some(Boolean)) return;
  try {
    const answer = await api.fetchApi(`/history?max_items=${HISTORY}`);
    // newest first
    for (const [promptId, { prompt, outputs }] of Object.entries(await answer.json()).reverse()) {
      if (!isOfThisGraph(prompt) || isAnothersRun(prompt)) continue;
      for (const [id, output] of Object.entries(outputs ?? {})) storeReports(promptId, id, output, prompt, true);
    }
    drawViews();
  } catch (error) {
    console.debug("PreciseCache: no history", error);
  }
}

// Calls `take(prompt)` and draws, if the prompt with this id was queued from the open graph. Others arrive too:
// the server sends every page the events of a prompt whose program names no client.
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

  // not awaited: opening a graph must not wait for the server
  afterConfigureGraph() {
    void restore();
  },
});
