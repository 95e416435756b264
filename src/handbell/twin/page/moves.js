/** How notifications are reached, moved and swiped away, on every kind of phone. */

import { isStill } from "./dom.js";

const SWIPE_AWAY_PIXELS = 90;
const SWIPE_BEGINS_PIXELS = 8;
const BUTTONS = ".card-main, .card-close, .stack-button";
const STEPS = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };

const reachable = (list) => [...list.querySelectorAll(BUTTONS)].filter((button) => button.offsetParent !== null);

/** Of all cards only one is met with Tab, which goes on behind them; arrows lead to the others. */
export function letOneBeReached(list, wanted = document.activeElement) {
  const buttons = reachable(list);
  const current = buttons.includes(wanted) ? wanted : buttons[0];
  const card = current?.closest(".card, .stack-header");
  for (const button of buttons) {
    button.tabIndex = button === current || (card && button.closest(".card, .stack-header") === card) ? 0 : -1;
  }
}

/** Let the arrow keys, Home and End lead from card to card. */
export function walkWithArrows(list) {
  list.addEventListener("focusin", (event) => letOneBeReached(list, event.target));
  list.addEventListener("keydown", (event) => {
    if (!(event.key in STEPS)) return;
    const mains = reachable(list).filter((button) => !button.matches(".card-close"));
    const here = mains.indexOf(event.target.closest(".card")?.querySelector(".card-main") ?? event.target);
    const next = mains[Math.min(Math.max(here + STEPS[event.key], 0), mains.length - 1)];
    if (!next || here < 0) return;
    event.preventDefault();
    next.focus();
  });
}

/** Let a finger or the mouse push the card aside; `away` is called past the threshold. */
export function letSwipe(root, away) {
  let start = null;
  let shift = 0;
  const settle = () => {
    if (start === null) return;
    start = null;
    root.style.removeProperty("--shift");
    root.classList.remove("swiping");
    if (Math.abs(shift) > SWIPE_AWAY_PIXELS) away();
    setTimeout(() => root.removeAttribute("data-swiped"));
  };
  root.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    start = event.clientX;
    shift = 0;
  });
  root.addEventListener("pointermove", (event) => {
    if (start === null) return;
    shift = event.clientX - start;
    if (Math.abs(shift) < SWIPE_BEGINS_PIXELS && !root.hasAttribute("data-swiped")) return;
    if (!root.hasPointerCapture(event.pointerId)) root.setPointerCapture(event.pointerId);
    root.setAttribute("data-swiped", "");
    root.classList.add("swiping");
    root.style.setProperty("--shift", `${shift}px`);
  });
  root.addEventListener("pointerup", settle);
  root.addEventListener("pointercancel", () => {
    shift = 0;
    settle();
  });
}

/** Where the children of a list are now. */
export function placesOf(list) {
  return new Map([...list.children].map((child) => [child, child.getBoundingClientRect().top]));
}

/** Let what was moved by an update slide from where it was. */
export function glide(places) {
  if (isStill()) return;
  for (const [child, top] of places) {
    const moved = top - child.getBoundingClientRect().top;
    if (!child.isConnected || Math.abs(moved) < 1) continue;
    child.animate(
      [{ transform: `translateY(${moved}px)` }, { transform: "none" }],
      { duration: 320, easing: "cubic-bezier(.2, .8, .2, 1)" },
    );
  }
}

/** Give the focus to the neighbour of a card that goes, so that the keyboard stays among them. */
export function passFocus(root, close) {
  const buttons = [...root.querySelectorAll(".card-close")];
  const place = buttons.indexOf(close);
  (buttons[place + 1] ?? buttons[place - 1])?.focus({ preventScroll: true });
}
