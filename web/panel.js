// The panel on a Cache Stats node. It shows what it is given; all text is set as textContent.

import { curve, legend, strip } from "./chart.js";
import { nodeById } from "./graph.js";
import { t } from "./text.js";

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function button(text, onClick) {
  const made = element("button", "precisecache-button", text);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

function bytes(value) {
  const units = ["B", "KB", "MB", "GB"];
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log(value) / Math.log(1000)));
  return `${(value / 1000 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

// Seconds as people say them.
function timeText(seconds) {
  if (seconds < 9.95) return t("%1 s", seconds.toFixed(1));
  const whole = Math.round(seconds);
  if (whole < 60) return t("%1 s", whole);
  if (whole < 3600) return t("%1 min %2 s", Math.floor(whole / 60), whole % 60);
  return t("%1 h %2 min", Math.floor(whole / 3600), Math.floor((whole % 3600) / 60));
}

// What people came for, in one line; null if it is not known. A plan is paid for at the start, so before the end a run
// is not said to lose time.
function speedupText({ speedup, saved, isEnded }) {
  if (speedup === null || saved === null || (saved < 0 && !isEnded)) return null;
  if (saved < 0) return t("%1× as fast, lost %2 (estimate)", speedup.toFixed(2), timeText(-saved));
  return t("%1× faster, saved %2 (estimate)", Number(speedup.toPrecision(2)), timeText(saved));
}

// The run before this one, to compare with.
function previousText({ label, computed, calls, seconds }) {
  const line = t("previous run: %1 of %2 computed, %3", computed, calls, timeText(seconds));
  return label ? `${line} (${label})` : line;
}

// What was planned and what became of it, in one line.
function planText({ budget, steps, computed, unplanned, isRehearsed }) {
  const plan = isRehearsed
    ? t("plan: %1 of %2 steps, from a rehearsal", budget, steps)
    : t("plan: %1 of %2 steps", budget, steps);
  if (computed === null) return plan;
  return `${plan} · ${unplanned ? t("computed %1, %2 unplanned", computed, unplanned) : t("computed %1", computed)}`;
}

// What to call each run: the title of its sampler's node, with the node's id where two samplers have the same title;
// the model where the node is not in the graph.
function namesOf(runs) {
  const titles = runs.map((run) => run.sampler && nodeById(run.sampler)?.title);
  return runs.map((run, i) => {
    if (!titles[i]) return run.model;
    const isShared = runs.some((other, j) => titles[j] === titles[i] && other.sampler !== run.sampler);
    return isShared ? `${titles[i]} #${run.sampler}` : titles[i];
  });
}

// The report as indented JSON, to copy and to save.
const asText = (report) => JSON.stringify(report, null, 1);

// Copies the text to the clipboard; returns whether that worked.
async function copy(content) {
  try {
    await navigator.clipboard.writeText(content);
    return true;
  } catch {
    // not a secure context (a server in the local network): copy the old way
    const focused = document.activeElement;
    const area = document.createElement("textarea");
    area.value = content;
    document.body.append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    focused?.focus?.();
    return isCopied;
  }
}

function save(content) {
  const url = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = "precisecache_report.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(url)); // after the browser has started the download
}

export class Panel {
  // onToggleAll(isAll): called when the user chooses the runs of every sampler of the prompt, or only this node's.
  // isOfWorkers: whether the node's runs are those of Raylight's workers.
  constructor(onToggleAll, isOfWorkers) {
    this.isOfWorkers = isOfWorkers;
    this.element = element("div", "precisecache-panel");
    this.runs = element("div", "precisecache-runs");
    this.runs.tabIndex = 0; // so that the keyboard scrolls it
    this.runs.dataset.captureWheel = "true"; // so that the wheel does where Vue renders the nodes
    this.copyButton = button("", () => this.#copy());
    this.copyButton.ariaLive = "polite";
    this.saveButton = button("", () => save(asText(this.report)));
    const label = element("label", "precisecache-all");
    this.allBox = document.createElement("input");
    this.allBox.type = "checkbox";
    this.allBox.addEventListener("change", () => onToggleAll(this.allBox.checked));
    this.allText = element("span", "");
    label.append(this.allBox, this.allText);
    const bar = element("div", "precisecache-bar");
    bar.append(this.copyButton, this.saveButton, label);
    this.element.append(this.runs, bar);
    this.show([], null, false);
  }

  // runs: in the form of runs.js, oldest first; report: what the buttons copy and save, or null.
  show(runs, report, isAll) {
    this.report = report;
    this.copyButton.disabled = this.saveButton.disabled = !report;
    this.allText.textContent = t("All samplers");
    this.saveButton.textContent = t("Save JSON");
    if (!this.timer) this.copyButton.textContent = t("Copy JSON");
    this.allBox.checked = isAll;
    const names = namesOf(runs);
    if (runs.length) this.runs.replaceChildren(...runs.map((run, i) => this.#run(run, names[i])));
    else this.runs.replaceChildren(element("div", "precisecache-empty", this.#empty()));
  }

  remove() {
    clearTimeout(this.timer);
    this.isRemoved = true;
    this.element.remove();
  }

  // Why there is no run.
  #empty() {
    if (this.isOfWorkers) return this.report ? t("No run of these workers") : t("No run yet: shown after the run");
    return this.report ? t("No run of this model") : t("No run yet");
  }

  async #copy() {
    const isCopied = await copy(asText(this.report));
    if (this.isRemoved) return;
    this.copyButton.textContent = isCopied ? t("Copied") : t("Not copied");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = null;
      this.copyButton.textContent = t("Copy JSON");
    }, 1500);
  }

  #run(run, name) {
    const box = element("div", "precisecache-run");
    // a step makes one call or more, so the number of calls alone does not show the progress
    const state = run.isEnded ? t("ended") : t("call %1, %2 steps", run.calls, run.steps);
    const head = element("div", "precisecache-head");
    head.append(element("span", "precisecache-model", name), element("span", "precisecache-state", state));
    const counters = element("dl", "precisecache-counters");
    const add = (name, className, value) => {
      const pair = element("div", className);
      pair.append(element("dt", "", t(name)), element("dd", "", value));
      counters.append(pair);
    };
    add("computed", "computed", `${run.computed}`);
    add("reused", "reused", `${run.reused}`);
    add("trials", "trials", `${run.trials}`);
    if (run.blocks) add("blocks skipped", "blocks", `${run.blocks.skipped} / ${run.blocks.calls}`);
    add("cache", "cache", bytes(run.cacheBytes));
    if (run.agreement !== null) add("agreement", "agreement", run.agreement.toFixed(2));
    if (run.seconds !== null) add("time", "seconds", timeText(run.seconds));
    box.append(head);
    box.append(...run.warnings.map((warning) => element("div", "precisecache-warning", warning)));
    if (run.expectation) box.append(element("div", "precisecache-expectation", run.expectation));
    const speedup = speedupText(run);
    if (speedup) box.append(element("div", "precisecache-speedup", speedup));
    box.append(strip(run));
    // a plan without a rehearsal knows no LFD
    if (!run.plan || run.lfd.some((value) => value !== null)) {
      const lines = element("div", "precisecache-legend");
      lines.append(...legend(run).map(([kind, text]) => element("span", kind, text)));
      box.append(curve(run), lines);
    }
    if (run.plan) box.append(element("div", "precisecache-plan", planText(run.plan)));
    box.append(counters);
    if (run.other) {
      const { name, reused, calls } = run.other;
      box.append(element("div", "precisecache-other", t("%1 reused %2 of %3 calls", name, reused, calls)));
    }
    if (run.label) box.append(element("div", "precisecache-label", run.label));
    if (run.previous) box.append(element("div", "precisecache-previous", previousText(run.previous)));
    return box;
  }
}
