// The page's words in the user's language, from locales/<language>/main.json.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

let words = {};

// Fetches the words; if the server does not answer they stay English.
export async function loadText() {
  try {
    const all = await api.getCustomNodesI18n();
    const locale = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
    words = { ...all?.en?.PreciseCache, ...all?.[locale]?.PreciseCache };
  } catch (error) {
    console.debug("PreciseCache: no translations", error);
  }
}

// The translation of an English word or phrase; %1, %2 … in it stand for the values.
export function t(english, ...values) {
  const found = typeof words[english] === "string" ? words[english] : english;
  return found.replace(/%(\d)/g, (place, number) => values[number - 1] ?? place);
}
