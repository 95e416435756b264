/** An icon for an app that has none here: its first letter on its own two colours. */

import { el, hashOf } from "./dom.js";

export function appIcon(app, name, className) {
  const letter = [...name.trim()][0] ?? "?";
  const node = el("span", { class: `app-icon ${className}`, "aria-hidden": "true", text: letter.toUpperCase() });
  node.style.setProperty("--hue", String(hashOf(app) % 360));
  return node;
}
