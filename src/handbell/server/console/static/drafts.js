// Drafts that outlive their page: kept in this browser, for this operator and app.

const LEFT_OUT = new Set(["token", "test_once", "do"]);
const KEPT_MILLISECONDS = 30 * 24 * 3600 * 1000;

const keyOf = (form) => form.dataset.draft;

/** Keep what a form holds now. */
export function keep(form) {
  const fields = [...new FormData(form)].filter(([name, value]) => !LEFT_OUT.has(name) && typeof value === "string");
  try {
    localStorage.setItem(keyOf(form), JSON.stringify({ at: Date.now(), fields }));
  } catch {
    // A browser that keeps nothing, or is full: the draft lives as long as its page.
  }
}

/** Forget what was kept of a form. */
export function forget(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // Nothing was kept.
  }
}

/** Return what was kept of a form: when, and its fields; null where there is nothing. */
export function kept(form) {
  try {
    const said = JSON.parse(localStorage.getItem(keyOf(form)) ?? "null");
    if (said && Date.now() - said.at < KEPT_MILLISECONDS) return said;
    forget(keyOf(form));
  } catch {
    forget(keyOf(form));
  }
  return null;
}
