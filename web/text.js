// The page's words in the user's language, from locales/<language>/main.json.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

let words = {};

// Fetch the words; without an answer they stay English.
export async function loadText() {
  try {
    const all = await api.getCustomNodesI18n();
    const locale = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
    words = { ...all?.en?.PreciseCache, ...all?.[locale]?.PreciseCache };
  } catch (error) {
    console.debug("PreciseCache: no translations", error);
  }
}

// A word or phrase, named by its English.
export function t(english) {
  return typeof words[english] === "string" ? words[english] : english;
}
