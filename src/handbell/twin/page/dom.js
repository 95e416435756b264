/**
 * Small helpers over the DOM.
 *
 * Whatever a sender wrote goes in as text: nothing here, or anywhere on the page, parses markup.
 */

const SVG = "http://www.w3.org/2000/svg";

/** Make an element. `on…` attributes are listeners, `text` is its text, null and false are left out. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) assign(node, name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function assign(node, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
  else if (name === "text") node.textContent = value;
  else node.setAttribute(name, value === true ? "" : value);
}

/** One of the page's own drawings, hidden from assistive technology. */
export function icon(name, className = "glyph") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** Write text only where it differs, so that selections and live regions stay quiet. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const views = new WeakMap();

/**
 * Make the children of `parent` follow `items`: made once per key, updated, put in order, removed.
 *
 * `create(item)` answers a view: an object with `root` and, if it changes, `update(item)`.
 * Elements that stay where they are aren't touched, so focus and animations survive.
 */
export function follow(parent, items, keyOf, create) {
  const known = views.get(parent) ?? new Map();
  views.set(parent, known);
  const wanted = new Set(items.map(keyOf));
  for (const [key, view] of known) {
    if (wanted.has(key)) continue;
    view.root.remove();
    known.delete(key);
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const view = known.get(key) ?? create(item);
    known.set(key, view);
    view.update?.(item);
    if (view.root === place) place = place.nextElementSibling;
    else moveBefore(parent, view.root, place);
  }
}

function moveBefore(parent, node, place) {
  const focused = node.contains(document.activeElement) ? document.activeElement : null;
  parent.insertBefore(node, place);
  focused?.focus({ preventScroll: true });
}

/** Whether the reader asked for less motion. */
export const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A button that copies what `text()` answers and says so for a moment. */
export function copyButton(text, label) {
  const button = el("button", { type: "button", class: "copy", "aria-label": label, title: label }, icon("copy"));
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    button.replaceChildren(icon("check"));
    button.dataset.copied = "";
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      delete button.dataset.copied;
    }, 1500);
  });
  return button;
}
