/** The notification cards on one lock screen: single ones, and stacks by thread. */

import { appIcon } from "./appicon.js";
import { el, follow, icon, isStill, write } from "./dom.js";
import { glide, letOneBeReached, letSwipe, passFocus, placesOf, walkWithArrows } from "./moves.js";
import { showAgo } from "./time.js";
import { openUrl, safeUrl, urlLabel } from "./url.js";

const SCROLLED_PIXELS = 24;
const LEVELS = {
  "time-sensitive": { text: "Time sensitive", icon: "clock" },
  critical: { text: "Critical", icon: "alarm" },
};

/** The list of cards. `actions` are open(card) and dismiss(card), answered by the twin. */
export class Shelf {
  #expanded = new Set();
  #phone = null;
  #unseen = 0;

  constructor(actions) {
    this.actions = actions;
    this.list = el("ul", { class: "shelf-cards" });
    this.arrived = el("button", { type: "button", class: "arrived", hidden: true });
    this.root = el("div", { class: "shelf", role: "group" }, this.arrived, this.list);
    this.arrived.addEventListener("click", () => this.#showNewest());
    this.root.addEventListener("scroll", () => this.#noteSeen(), { passive: true });
    walkWithArrows(this.list);
  }

  update(phone) {
    const known = new Set(this.#phone?.cards.map((card) => `${card.id} ${card.replaced}`));
    const fresh = phone.cards.filter((card) => !known.has(`${card.id} ${card.replaced}`)).length;
    if (this.#phone && this.root.scrollTop > SCROLLED_PIXELS) this.#unseen += fresh;
    this.#phone = phone;
    this.root.setAttribute("aria-label", `Notifications on ${phone.name}`);
    const places = placesOf(this.list);
    const stacks = stacksOf(phone.cards);
    follow(this.list, stacks, (stack) => stack.key, () => new Stack(this));
    this.#tellUnseen();
    letOneBeReached(this.list);
    glide(places);
  }

  /** What has arrived above the part that is seen is told there, until somebody looks. */
  #tellUnseen() {
    this.arrived.hidden = !this.#unseen;
    write(this.arrived, this.#unseen === 1 ? "1 new notification" : `${this.#unseen} new notifications`);
  }

  #noteSeen() {
    if (!this.#unseen || this.root.scrollTop > SCROLLED_PIXELS) return;
    this.#unseen = 0;
    this.#tellUnseen();
  }

  #showNewest() {
    this.root.scrollTo({ top: 0, behavior: isStill() ? "auto" : "smooth" });
    this.list.querySelector(".card-main")?.focus({ preventScroll: true });
  }

  get phone() {
    return this.#phone;
  }

  isExpanded(key) {
    return this.#expanded.has(key);
  }

  setExpanded(key, isExpanded) {
    if (isExpanded) this.#expanded.add(key);
    else this.#expanded.delete(key);
    this.update(this.#phone);
  }
}

/** Cards of one thread belong together, where its newest card is; one without a thread is alone. */
function stacksOf(cards) {
  const stacks = new Map();
  for (const card of cards) {
    const key = card.thread_id ? `thread ${card.thread_id}` : `card ${card.id}`;
    if (!stacks.has(key)) stacks.set(key, { key, thread: card.thread_id, cards: [] });
    stacks.get(key).cards.push(card);
  }
  return [...stacks.values()];
}

class Stack {
  constructor(shelf) {
    this.shelf = shelf;
    this.title = el("h3", { class: "stack-title" });
    this.less = el("button", { type: "button", class: "stack-button", text: "Show less" });
    this.clear = el("button", { type: "button", class: "stack-button", text: "Clear" });
    this.header = el("div", { class: "stack-header", hidden: true }, this.title, this.less, this.clear);
    this.list = el("ul", { class: "stack-cards" });
    this.root = el("li", { class: "stack" }, this.header, this.list);
    this.less.addEventListener("click", () => this.collapse());
    this.clear.addEventListener("click", () => this.dismissAll());
  }

  update(stack) {
    this.stack = stack;
    const isMany = stack.cards.length > 1;
    const isOpen = isMany && this.shelf.isExpanded(stack.key);
    this.isCollapsed = isMany && !isOpen;
    this.root.dataset.state = isOpen ? "open" : this.isCollapsed ? "stacked" : "single";
    this.root.dataset.depth = String(Math.min(stack.cards.length, 3));
    this.header.hidden = !isOpen;
    write(this.title, stack.thread ?? "");
    const visible = this.isCollapsed ? stack.cards.slice(0, 1) : stack.cards;
    follow(this.list, visible, (card) => card.id, (card) => new CardView(this, card));
  }

  expand() {
    this.shelf.setExpanded(this.stack.key, true);
    this.less.focus({ preventScroll: true });
  }

  collapse() {
    this.shelf.setExpanded(this.stack.key, false);
    this.list.querySelector("button")?.focus({ preventScroll: true });
  }

  dismissAll() {
    this.stack.cards.forEach((card) => this.shelf.actions.dismiss(card));
  }
}

class CardView {
  constructor(stack, card) {
    this.stack = stack;
    this.replaced = card.replaced;
    const phone = stack.shelf.phone;
    this.level = el("span", { class: "card-level", hidden: true });
    this.app = el("span", { class: "card-app" });
    this.sound = icon("bell", "card-bell");
    this.time = el("time", { class: "card-time" });
    this.title = el("span", { class: "card-title", dir: "auto" });
    this.subtitle = el("span", { class: "card-subtitle", dir: "auto" });
    this.body = el("span", { class: "card-body", dir: "auto" });
    this.foot = el("span", { class: "card-foot" });
    this.image = el("img", { class: "card-image", alt: "", decoding: "async", referrerpolicy: "no-referrer", hidden: true });
    this.image.addEventListener("error", () => { this.image.hidden = true; });
    this.main = el(
      "button",
      { type: "button", class: "card-main" },
      appIcon(phone, "card-icon"),
      el(
        "span",
        { class: "card-text" },
        el("span", { class: "card-head" }, this.app, this.sound, this.time),
        this.level, this.title, this.subtitle, this.body, this.foot,
      ),
      this.image,
    );
    this.close = el("button", { type: "button", class: "card-close" }, icon("close"));
    this.root = el("li", { class: "card arriving" }, this.main, this.close);
    this.root.addEventListener("animationend", () => this.root.classList.remove("arriving", "replaced"));
    this.main.addEventListener("click", () => this.tap());
    this.close.addEventListener("click", () => this.dismiss());
    letSwipe(this.root, () => this.dismiss());
  }

  update(card) {
    this.card = card;
    this.root.dataset.card = card.id;
    this.root.dataset.level = card.interruption_level;
    this.root.toggleAttribute("data-opened", Boolean(card.opened_at));
    this.#writeTexts();
    this.#showLevel();
    this.#showImage();
    this.#showFoot();
    this.#label();
    if (card.replaced !== this.replaced) this.#flash();
    this.replaced = card.replaced;
  }

  #writeTexts() {
    const { card } = this;
    write(this.app, this.stack.shelf.phone.app_name);
    for (const name of ["title", "subtitle", "body"]) {
      write(this[name], card[name]);
      this[name].hidden = !card[name];
    }
    this.sound.toggleAttribute("hidden", !card.sound);
    showAgo(this.time, card.shown_at);
  }

  #showLevel() {
    const level = LEVELS[this.card.interruption_level];
    this.level.hidden = !level;
    this.level.replaceChildren(...(level ? [icon(level.icon), level.text] : []));
  }

  #showImage() {
    const { image_url: address } = this.card;
    if (this.shownImage === address) return;
    this.shownImage = address;
    this.image.hidden = !address;
    if (address) this.image.src = address;
    else this.image.removeAttribute("src");
  }

  #showFoot() {
    const { card, stack } = this;
    const more = stack.stack.cards.length - 1;
    const url = safeUrl(card.url);
    const parts = [];
    if (stack.isCollapsed) parts.push(el("span", { class: "card-more", text: `${more} more` }, icon("chevron")));
    else if (card.opened_at) parts.push(el("span", { class: "card-mark" }, icon("check"), "Opened"));
    if (url) parts.push(el("span", { class: "card-link", title: url.href }, icon("link"), el("span", { text: urlLabel(url) })));
    else if (card.url) parts.push(el("span", { class: "card-link blocked", text: "Link not opened here" }));
    this.foot.hidden = parts.length === 0;
    this.foot.replaceChildren(...parts);
  }

  #label() {
    const { card, stack } = this;
    const count = stack.stack.cards.length;
    const name = card.title || card.body || "notification";
    if (stack.isCollapsed) this.main.setAttribute("aria-expanded", "false");
    else this.main.removeAttribute("aria-expanded");
    this.close.setAttribute("aria-label", stack.isCollapsed ? `Dismiss ${count} notifications` : `Dismiss ${name}`);
  }

  #flash() {
    this.root.classList.remove("arriving", "replaced");
    void this.root.offsetWidth; // the animation starts anew only after a layout in between
    this.root.classList.add("replaced");
  }

  tap() {
    if (this.root.hasAttribute("data-swiped")) return;
    if (this.stack.isCollapsed) {
      this.stack.expand();
      return;
    }
    const url = safeUrl(this.card.url);
    if (url) openUrl(url);
    this.stack.shelf.actions.open(this.card);
  }

  dismiss() {
    if (this.root.contains(document.activeElement)) passFocus(this.stack.shelf.root, this.close);
    if (this.stack.isCollapsed) this.stack.dismissAll();
    else this.stack.shelf.actions.dismiss(this.card);
  }
}
