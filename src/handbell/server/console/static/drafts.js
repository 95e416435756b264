// Drafts that outlive their page: kept in this browser, for this operator and app.
//
// Each tab keeps its own, so that two of them do not write over each other. A new tab goes on with a
// copy of the latest; what it was copied from is forgotten with it, unless it was changed since.

const LEFT_OUT = new Set(["token", "test_once", "do"]);
const KEPT_MILLISECONDS = 30 * 24 * 3600 * 1000;

const places = new Map();

/** The place of this tab's draft, "" while it has none. */
function placeOf(key) {
  try {
    return sessionStorage.getItem(key) ?? places.get(key) ?? "";
  } catch {
    return places.get(key) ?? "";
  }
}

function claim(form) {
  const key = form.dataset.draft;
  const known = placeOf(key);
  if (known) return known;
  const place = `${key}:${form.elements.once.value}`;
  places.set(key, place);
  try {
    sessionStorage.setItem(key, place);
  } catch {
    // A browser that keeps nothing: the place lives as long as its page.
  }
  return place;
}

function read(place) {
  try {
    const said = JSON.parse(localStorage.getItem(place) ?? "null");
    if (said && Date.now() - said.at < KEPT_MILLISECONDS) return { ...said, place };
    drop(place);
  } catch {
    drop(place);
  }
  return null;
}

function write(place, draft) {
  try {
    localStorage.setItem(place, JSON.stringify(draft));
  } catch {
    // A browser that keeps nothing, or is full: the draft lives as long as its page.
  }
}

/** Forget the draft of one place. */
export function drop(place) {
  try {
    localStorage.removeItem(place);
  } catch {
    // Nothing was kept.
  }
}

/** Keep what a form holds now. */
export function keep(form) {
  const place = claim(form);
  const fields = [...new FormData(form)].filter(([name, value]) => !LEFT_OUT.has(name) && typeof value === "string");
  write(place, { at: Date.now(), fields, origin: read(place)?.origin });
}

/** Forget this tab's draft, and the one that it was copied from. */
export function forget(key) {
  const place = placeOf(key);
  const origin = place && read(place)?.origin;
  if (origin && read(origin.place)?.at === origin.at) drop(origin.place);
  if (place) drop(place);
}

/** Whether this tab has kept a draft before: what others keep is only offered then. */
export const isKnown = (form) => placeOf(form.dataset.draft) !== "";

/** Return the draft of this tab as its place, time and fields; null where there is none. */
export const kept = (form) => (isKnown(form) ? read(placeOf(form.dataset.draft)) : null);

/** Return the drafts of other tabs, the latest first. */
export function others(form) {
  const [prefix, own] = [`${form.dataset.draft}:`, placeOf(form.dataset.draft)];
  try {
    const found = Object.keys(localStorage).filter((place) => place.startsWith(prefix) && place !== own);
    return found.map(read).filter(Boolean).sort((one, other) => other.at - one.at);
  } catch {
    return [];
  }
}

/** Make a draft of another tab, which the form shows now, this tab's own. */
export function adopt(form, draft) {
  const { place, at } = draft;
  keep(form);
  const mine = claim(form);
  write(mine, { ...read(mine), origin: { place, at } });
}
