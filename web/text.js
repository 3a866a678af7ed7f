// The page's words in the user's language, from locales/<language>/main.json.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

let words = {};
let graphWords = {}; // of the shipped graphs: titles, and lines of notes
let loading = null;

// Fetches the words, once; if the server does not answer they stay English.
export function loadText() {
  loading ??= fetchText();
  return loading;
}

async function fetchText() {
  try {
    const all = await api.getCustomNodesI18n();
    const locale = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
    words = { ...all?.en?.PreciseCache, ...all?.[locale]?.PreciseCache };
    graphWords = { ...all?.en?.PreciseCacheGraphs, ...all?.[locale]?.PreciseCacheGraphs };
  } catch (error) {
    console.debug("PreciseCache: no translations", error);
  }
}

// The translation of an English word or phrase; %1, %2 … in it stand for the values.
export function t(english, ...values) {
  const found = typeof words[english] === "string" ? words[english] : english;
  return found.replace(/%(\d)/g, (place, number) => values[number - 1] ?? place);
}

// The translation of a title, or of a line of a note, of a shipped graph; null if no shipped graph has it.
export function ofShippedGraph(english) {
  return typeof graphWords[english] === "string" ? graphWords[english] : null;
}
