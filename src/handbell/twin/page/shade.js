/** The notification shade of an Android phone: what alerts on top, what is silent below. */

import { el, follow, icon, write } from "./dom.js";
import { glide, letOneBeReached, letSwipe, passFocus, placesOf, walkWithArrows } from "./moves.js";
import { showAgo } from "./time.js";
import { openUrl, safeUrl, urlLabel } from "./url.js";

const LONG_BODY = 76;

/** The notifications of one phone. `actions` are open(card), dismiss(card) and channels(). */
export class Shade {
  #phone = null;

  constructor(actions) {
    this.actions = actions;
    this.alerting = el("ul", { class: "shade-cards" });
    this.silentTitle = el("h3", { class: "shade-title", text: "Silent", hidden: true });
    this.silent = el("ul", { class: "shade-cards" });
    this.manage = el("button", { type: "button", class: "shade-button", text: "Channels" });
    this.clear = el("button", { type: "button", class: "shade-button", text: "Clear all" });
    this.manage.addEventListener("click", () => actions.channels());
    this.clear.addEventListener("click", () => this.#phone.cards.forEach((card) => actions.dismiss(card)));
    this.body = el("div", { class: "shade-body" }, this.alerting, this.silentTitle, this.silent);
    this.root = el(
      "div",
      { class: "shade", role: "group" },
      this.body,
      el("div", { class: "shade-end" }, this.manage, this.clear),
    );
    walkWithArrows(this.body);
  }

  update(phone) {
    this.#phone = phone;
    this.root.setAttribute("aria-label", `Notifications on ${phone.name}`);
    const places = [placesOf(this.alerting), placesOf(this.silent)];
    const isSilent = (card) => card.interruption_level === "passive";
    this.#show(this.alerting, phone.cards.filter((card) => !isSilent(card)));
    this.#show(this.silent, phone.cards.filter(isSilent));
    this.silentTitle.hidden = !phone.cards.some(isSilent);
    this.clear.hidden = phone.cards.length === 0;
    letOneBeReached(this.body);
    places.forEach(glide);
  }

  get phone() {
    return this.#phone;
  }

  #show(list, cards) {
    follow(list, cards, (card) => card.id, (card) => new NotificationView(this, card));
  }
}

class NotificationView {
  constructor(shade, card) {
    this.shade = shade;
    this.replaced = card.replaced;
    this.isExpanded = Boolean(card.image_url);
    this.source = el("span", { class: "note-source" });
    this.sound = icon("bell", "card-bell");
    this.time = el("time", { class: "note-time" });
    this.title = el("span", { class: "note-title", dir: "auto" });
    this.body = el("span", { class: "note-body", dir: "auto" });
    this.thumb = picture("note-thumb");
    this.big = picture("note-picture");
    this.foot = el("span", { class: "card-foot" });
    this.main = el(
      "button",
      { type: "button", class: "card-main note-main" },
      smallIcon(shade.phone, card),
      el("span", { class: "note-text" }, el("span", { class: "note-head" }, this.source, this.sound, this.time), this.title, this.body),
      this.thumb,
      this.big,
      this.foot,
    );
    this.more = el("button", { type: "button", class: "note-more" }, icon("chevron"));
    this.close = el("button", { type: "button", class: "card-close" }, icon("close"));
    this.actions = el("div", { class: "note-actions", hidden: true });
    this.root = el("li", { class: "card note arriving" }, this.main, this.actions, this.more, this.close);
    this.root.addEventListener("animationend", () => this.root.classList.remove("arriving", "replaced"));
    this.main.addEventListener("click", () => this.tap());
    this.more.addEventListener("click", () => this.#expand(!this.isExpanded));
    this.close.addEventListener("click", () => this.dismiss());
    letSwipe(this.root, () => this.dismiss());
  }

  update(card) {
    this.card = card;
    this.root.dataset.card = card.id;
    if (card.color) this.root.style.setProperty("--note-color", card.color);
    else this.root.style.removeProperty("--note-color");
    write(this.source, [this.shade.phone.app_name, card.channel].filter(Boolean).join(" · "));
    this.sound.toggleAttribute("hidden", !card.sound);
    showAgo(this.time, card.shown_at);
    for (const name of ["title", "body"]) {
      write(this[name], card[name]);
      this[name].hidden = !card[name];
    }
    this.#showImage();
    this.#showFoot();
    this.#showActions();
    this.#expand(this.isExpanded);
    this.close.setAttribute("aria-label", `Dismiss ${card.title || card.body || "notification"}`);
    if (card.replaced !== this.replaced) this.#flash();
    this.replaced = card.replaced;
  }

  #showImage() {
    const { image_url: address } = this.card;
    if (this.shownImage === address) return;
    this.shownImage = address;
    this.isExpanded ||= Boolean(address);
    for (const image of [this.thumb, this.big]) {
      image.dataset.missing = "";
      if (address) {
        image.src = address;
        delete image.dataset.missing;
      } else image.removeAttribute("src");
    }
  }

  #showFoot() {
    const { card } = this;
    const url = safeUrl(card.url);
    const parts = [];
    if (card.count > 1) parts.push(el("span", { text: `counts as ${card.count}` }));
    if (card.is_sticky) parts.push(el("span", { text: "sticky" }));
    if (card.opened_at) parts.push(el("span", { class: "card-mark" }, icon("check"), "Opened"));
    if (url) parts.push(el("span", { class: "card-link", title: url.href }, icon("link"), el("span", { text: urlLabel(url) })));
    else if (card.url) parts.push(el("span", { class: "card-link blocked", text: "Link not opened here" }));
    this.foot.hidden = parts.length === 0;
    this.foot.replaceChildren(...parts);
  }

  #showActions() {
    const drawn = JSON.stringify(this.card.actions);
    if (this.drawnActions === drawn) return;
    this.drawnActions = drawn;
    this.actions.hidden = this.card.actions.length === 0;
    this.actions.replaceChildren(...this.card.actions.map((name) => {
      const button = el("button", { type: "button", class: "note-action", text: name });
      button.addEventListener("click", () => this.tap());
      return button;
    }));
  }

  #expand(isExpanded) {
    this.isExpanded = isExpanded;
    const { card } = this;
    const canGrow = Boolean(card.image_url) || card.body.length > LONG_BODY;
    this.more.hidden = !canGrow;
    this.more.setAttribute("aria-expanded", String(isExpanded));
    this.more.setAttribute("aria-label", `${isExpanded ? "Fold" : "Unfold"} ${card.title || card.body || "notification"}`);
    this.root.toggleAttribute("data-expanded", isExpanded);
  }

  #flash() {
    this.root.classList.remove("arriving", "replaced");
    void this.root.offsetWidth; // the animation starts anew only after a layout in between
    this.root.classList.add("replaced");
  }

  tap() {
    if (this.root.hasAttribute("data-swiped")) return;
    const url = safeUrl(this.card.url);
    if (url) openUrl(url);
    if (this.root.contains(document.activeElement)) passFocus(this.shade.root, this.close);
    this.shade.actions.open(this.card);
  }

  dismiss() {
    if (this.root.contains(document.activeElement)) passFocus(this.shade.root, this.close);
    this.shade.actions.dismiss(this.card);
  }
}

/** A picture of the sender's; one that cannot be loaded takes no room. */
function picture(className) {
  const image = el("img", { class: className, alt: "", decoding: "async", referrerpolicy: "no-referrer", "data-missing": true });
  image.addEventListener("error", () => { image.dataset.missing = ""; });
  return image;
}

/** The small icon: the app's letter in one colour, as Android draws it. */
function smallIcon(phone, card) {
  const node = el("span", { class: "note-icon", "aria-hidden": "true", title: card.icon ?? "", text: phone.icon.letter });
  node.style.setProperty("--hue", String(phone.icon.hue));
  return node;
}
