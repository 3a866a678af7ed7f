// Sampler runs in the form that the panel shows: from `precisecache.calls` events during sampling,
// from the report at the end. Every value from the server is checked here.

const MAX_CALLS = 20000;
const MAX_TEXT = 400;
const MAX_IDS = 64; // of nodes

const count = (value) => (Number.isInteger(value) && value >= 0 ? value : null);
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
const isText = (value) => typeof value === "string";
const text = (value) => (isText(value) ? value.slice(0, MAX_TEXT) : "");
const list = (value) => (Array.isArray(value) ? value : []);
const ids = (value) => list(value).slice(0, MAX_IDS).filter(isText);
const runId = (value) => (isText(value) && /^[0-9a-f]{12}$/.test(value) ? value : null);

// A letter for each of `length` calls, "?" where none is known.
const letters = (value, length) => (isText(value) ? value : "").slice(0, length).padEnd(length, "?");

function blocksOf(value) {
  const calls = count(value?.block_calls);
  const skipped = count(value?.block_calls_skipped);
  return calls === null || skipped === null ? null : { calls, skipped };
}

// What a run planned, or null. An event does not say what became of the plan: its `computed` and `unplanned` are null.
function planOf(value) {
  const budget = count(value?.budget);
  const steps = count(value?.steps);
  if (budget === null || steps === null) return null;
  const [computed, unplanned] = [count(value.computed), count(value.unplanned)];
  return { budget, steps, computed, unplanned, isRehearsed: value.is_rehearsed === true };
}

// The counters that events and reports share, or null where one is missing.
function counters(data) {
  const found = {
    steps: count(data?.steps),
    calls: count(data?.calls),
    computed: count(data?.computed),
    reused: count(data?.reused),
    trials: count(data?.trials),
  };
  const isWhole = Object.values(found).every((value) => value !== null) && found.calls <= MAX_CALLS;
  if (!isWhole) return null;
  return {
    ...found,
    model: text(data.model),
    sampler: text(data.sampler),
    expectation: text(data.expectation),
    threshold: number(data.threshold),
    plan: planOf(data.plan),
    speedup: number(data.speedup),
    saved: number(data.saved_seconds),
    aside: list(data.standing_aside).slice(0, 2), // of lfcache and blockcache, those that stand aside
  };
}

// How many calls another step cache reused, or null.
function otherOf(value) {
  const [calls, reused] = [count(value?.calls), count(value?.reused)];
  return calls === null || reused === null ? null : { name: text(value.name), calls, reused };
}

// The content of an event, or null if it is malformed. id: the run's id.
export function readCalls(data) {
  const found = counters(data);
  const first = count(data?.first);
  const id = runId(data?.run);
  if (data?.version !== 2 || !found || first === null || id === null) return null;
  if (!Array.isArray(data.lfd) || typeof data.decisions !== "string") return null;
  if (first + data.decisions.length !== found.calls || data.lfd.length !== data.decisions.length) return null;
  return {
    ...found,
    id,
    first,
    promptId: text(data.prompt_id),
    nodes: ids(data.nodes),
    stats: ids(data.stats),
    decisions: data.decisions.replace(/[^CR]/g, "?"),
    reasons: letters(data.reasons, data.decisions.length),
    lfd: data.lfd.map(number),
    cacheBytes: count(data.cache_bytes) ?? 0,
    blocks: blocksOf(data.blocks),
    warnings: list(data.warnings).map(text),
    isEnded: data.is_ended === true,
  };
}

// The run after one more event; `before` is what this returned for the previous event, or null. Calls
// that no event reported are "?".
export function withCalls(before, event) {
  const decisions = (before?.decisions ?? "").slice(0, event.first).padEnd(event.first, "?") + event.decisions;
  const reasons = (before?.reasons ?? "").slice(0, event.first).padEnd(event.first, "?") + event.reasons;
  const known = (before?.lfd ?? []).slice(0, event.first);
  const lfd = [...known, ...Array(event.first - known.length).fill(null), ...event.lfd];
  return { ...event, decisions, reasons, lfd, sigmas: [], label: "", agreement: null, seconds: null };
}

// The runs in the output of a Cache Stats node, which has a report for each item of a list; null if it has none.
// id: the run's id, null in a report of version 1; raw: the report's entry, unchanged.
export function readReports(output) {
  const reports = list(output?.precisecache).filter((report) => Array.isArray(report?.runs));
  return reports.length ? reports.flatMap((report) => report.runs.map(readRun)).filter(Boolean) : null;
}

function readRun(run) {
  const found = counters(run);
  return (
    found && {
      ...found,
      id: runId(run.run),
      nodes: ids(run.nodes),
      raw: run,
      decisions: typeof run.decisions === "string" ? run.decisions.slice(0, MAX_CALLS).replace(/[^CR]/g, "?") : "",
      reasons: letters(run.reasons, found.calls),
      sigmas: list(run.sigmas).slice(0, MAX_CALLS).map(number),
      lfd: list(run.lfd).slice(0, MAX_CALLS).map(number),
      cacheBytes: (count(run.cache_bytes?.lfcache) ?? 0) + (count(run.cache_bytes?.blockcache) ?? 0),
      blocks: blocksOf(run.blockcache),
      warnings: list(run.warnings).map(text),
      label: text(run.label),
      other: otherOf(run.other_cache),
      agreement: number(run.trial_agreement),
      seconds: number(run.seconds?.sampling),
      isEnded: true,
    }
  );
}
