/** The icon of a phone's app, as the twin says it looks: a letter on two colours. */

import { el } from "./dom.js";

export function appIcon(phone, className) {
  const { letter, hue, second_hue: second } = phone.icon;
  const node = el("span", { class: `app-icon ${className}`, "aria-hidden": "true", text: letter });
  node.style.setProperty("--hue", String(hue));
  node.style.setProperty("--second-hue", String(second));
  return node;
}
