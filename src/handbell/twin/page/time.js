/** Times as people say them. All instants are UNIX milliseconds. */

import { write } from "./dom.js";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** "now", "2m ago", "3h ago", "5d ago". */
function ago(instant, now = Date.now()) {
  const passed = now - instant;
  if (passed < MINUTE) return "now";
  if (passed < HOUR) return `${Math.floor(passed / MINUTE)}m ago`;
  if (passed < DAY) return `${Math.floor(passed / HOUR)}h ago`;
  return `${Math.floor(passed / DAY)}d ago`;
}

/** A time of day with seconds, in the reader's own way of writing it. */
export const timeOfDay = (instant) => new Date(instant).toLocaleTimeString(undefined, { hour: "numeric", minute: "2-digit", second: "2-digit", timeZoneName: "short" });

/** Hours and minutes without AM or PM, as a lock screen shows them. */
function clockText(now = new Date()) {
  return new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" })
    .formatToParts(now)
    .filter((part) => ["hour", "minute", "literal"].includes(part.type))
    .map((part) => part.value)
    .join("")
    .trim();
}

/** The date below the clock. */
function dateText(now = new Date()) {
  return now.toLocaleDateString(undefined, { weekday: "long", month: "long", day: "numeric" });
}

/** Mark `node` (a <time>) as a moment that `refreshAges` keeps up to date. */
export function showAgo(node, instant) {
  node.dateTime = new Date(instant).toISOString();
  node.title = new Date(instant).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
  node.dataset.ago = String(instant);
  write(node, ago(instant));
}

/** Bring every relative time up to date. */
export function refreshAges() {
  for (const node of document.querySelectorAll("time[data-ago]")) showAgo(node, Number(node.dataset.ago));
}

/** Bring every lock screen's clock up to date, all at once. */
export function refreshClocks(root = document) {
  const clock = clockText();
  const date = dateText();
  for (const node of root.querySelectorAll("[data-clock]")) write(node, clock);
  for (const node of root.querySelectorAll("[data-date]")) write(node, date);
}
