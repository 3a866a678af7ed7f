// A live panel on every Cache Stats node.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { graphOfPage, nodeById, whenRemoved } from "./graph.js";
import { Panel } from "./panel.js";
import { readCalls, readReport, withCalls } from "./runs.js";
import { loadText } from "./text.js";

const CLASS = "PreciseCacheStats";
const SHOW_ALL = "show all samplers"; // the node's property behind the panel's checkbox
const MIN_SIZE = [340, 200];
const MAX_RUNS = 64;
const HISTORY = 8; // prompts looked through for the last report

const views = new Map(); // node -> View

// What one node shows: the runs of one prompt, by events until there is a report.
class View {
  constructor(node) {
    this.node = node;
    this.panel = new Panel((isAll) => {
      node.properties[SHOW_ALL] = isAll;
      this.restart(this.promptId);
      restore();
    });
    this.restart(null);
  }

  get isAll() {
    return this.node.properties?.[SHOW_ALL] === true;
  }

  get isEmpty() {
    return !this.runs.size && !this.reports.size;
  }

  restart(promptId) {
    this.promptId = promptId;
    this.runs = new Map(); // number -> run, of which no report is known yet
    this.reports = new Map(); // Cache Stats node -> report
    this.draw();
  }

  takeCalls(event, owners) {
    if (!this.isAll && !owners.includes(this.node)) return;
    if (event.promptId !== this.promptId) this.restart(event.promptId);
    const before = this.runs.get(event.run);
    // the last event of a run may come after its report
    if (!before && event.isEnded && owners.some((node) => this.reports.has(node))) return;
    this.runs.set(event.run, { ...withCalls(before, event), owners });
    if (this.runs.size > MAX_RUNS) this.runs.delete(this.runs.keys().next().value);
    this.draw();
  }

  takeReport(promptId, node, report) {
    if (!this.isAll && node !== this.node) return;
    if (promptId !== this.promptId) this.restart(promptId);
    this.reports.set(node, report);
    for (const [number, run] of this.runs) if (run.owners.includes(node)) this.runs.delete(number);
    this.draw();
  }

  draw() {
    const reports = [...this.reports.values()];
    const report = reports.length ? { ...reports[0], runs: reports.flatMap((one) => one.runs) } : null;
    this.panel.show([...readReport(report), ...this.runs.values()], report, this.isAll);
  }
}

function takeReport(promptId, id, output) {
  const [report] = Array.isArray(output?.precisecache) ? output.precisecache : [];
  const node = nodeById(id);
  if (node?.comfyClass !== CLASS || !Array.isArray(report?.runs)) return;
  for (const view of views.values()) view.takeReport(promptId, node, report);
}

// Whether a prompt of the history was queued from the open graph: by the graph's id or, where one
// has none (a file in API format), by its nodes.
function isOfThisGraph(prompt) {
  const [mine, its] = [graphOfPage().id, prompt?.[3]?.extra_pnginfo?.workflow?.id];
  if (isId(mine) && isId(its)) return mine === its;
  return Object.entries(prompt?.[2] ?? {}).every(([id, node]) => nodeById(id)?.comfyClass === node?.class_type);
}

const isId = (id) => typeof id === "string" && /[1-9a-f]/.test(id);

// After the page or a graph was loaded: the last report of this graph, from the server's history.
async function restore() {
  if (![...views.values()].some((view) => view.isEmpty)) return;
  try {
    const answer = await api.fetchApi(`/history?max_items=${HISTORY}`);
    for (const [promptId, { prompt, outputs }] of Object.entries(await answer.json()).reverse()) {
      if (!isOfThisGraph(prompt)) continue;
      const found = Object.entries(outputs ?? {}).filter(([, output]) => output?.precisecache);
      const waiting = [...views.values()].filter((view) => view.isEmpty);
      for (const [id, output] of found) {
        const node = nodeById(id);
        if (node?.comfyClass !== CLASS || !Array.isArray(output.precisecache[0]?.runs)) continue;
        for (const view of waiting) view.takeReport(promptId, node, output.precisecache[0]);
      }
    }
  } catch (error) {
    console.debug("PreciseCache: no history", error);
  }
}

app.registerExtension({
  name: "PreciseCache.CacheStats",

  async init() {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL("./style.css", import.meta.url).href;
    document.head.append(style);
    await loadText();
  },

  async setup() {
    api.addEventListener("precisecache.calls", ({ detail }) => {
      const event = readCalls(detail);
      const owners = event?.stats.map(nodeById).filter(Boolean);
      if (event) for (const view of views.values()) view.takeCalls(event, owners);
    });
    api.addEventListener("executed", ({ detail }) =>
      takeReport(detail?.prompt_id, detail?.display_node ?? detail?.node, detail?.output)
    );
  },

  nodeCreated(node) {
    if (node.comfyClass !== CLASS) return;
    const view = new View(node);
    views.set(node, view);
    const widget = node.addDOMWidget("precisecache_panel", "precisecache_panel", view.panel.element, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => MIN_SIZE[1],
    });
    widget.serialize = false;
    const size = node.computeSize();
    node.setSize([Math.max(MIN_SIZE[0], size[0]), size[1]]);
    whenRemoved(node, () => {
      views.delete(node);
      view.panel.remove();
    });
  },

  async afterConfigureGraph() {
    for (const view of views.values()) view.draw();
    await restore();
  },
});
