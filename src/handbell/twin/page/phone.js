/** One virtual phone: its lock screen, its dock, its switch. */

import { appIcon } from "./appicon.js";
import { Shelf } from "./cards.js";
import { copyButton, el, icon, write } from "./dom.js";
import { refreshClocks } from "./time.js";

const WALLPAPERS = 5;
const RING_MILLISECONDS = 1600;

/**
 * Draws one phone and tells `actions` what its owner does: open, dismiss, switch, openApp, remove,
 * setChannel, each with the phone first. This is the iPhone; others override what they draw.
 */
export class PhoneView {
  static #made = 0;

  constructor(phone, actions) {
    this.phone = phone;
    this.actions = actions;
    this.wallpaper = PhoneView.#made++ % WALLPAPERS;
    this.shelf = this.makeShelf({
      open: (card) => actions.open(this.phone, card),
      dismiss: (card) => actions.dismiss(this.phone, card),
    });
    this.heading = el("h2", { class: "phone-name", id: `name-${phone.id}` });
    this.root = el(
      "article",
      { class: "phone", "data-phone": phone.id, "data-platform": phone.platform, "aria-labelledby": this.heading.id },
      this.#label(),
      this.#device(),
      this.#facts(),
    );
    refreshClocks(this.root);
  }

  makeShelf(actions) {
    return new Shelf(actions);
  }

  /** What the screen shows besides the notifications and the app that is gone, from top to bottom. */
  get parts() {
    const lock = el(
      "div",
      { class: "lock", "aria-hidden": "true" },
      el("span", { class: "lock-date", "data-date": true }),
      el("span", { class: "lock-clock", "data-clock": true }),
    );
    return { above: [statusBar(), lock], below: [this.dock()] };
  }

  get goneText() {
    return "The push service has answered 410: the token is not valid any more. Opened, the app registers with a new one.";
  }

  #label() {
    this.mail = el("p", { class: "phone-mail" });
    this.power = el("button", { type: "button", role: "switch", class: "switch" }, el("span", { class: "switch-knob" }));
    this.power.addEventListener("click", () => this.actions.switch(this.phone, !this.phone.is_on));
    this.bin = el("button", { type: "button", class: "tool small" }, icon("bin"));
    this.bin.addEventListener("click", () => this.actions.remove(this.phone));
    return el("header", { class: "phone-label" }, el("div", { class: "phone-who" }, this.heading, this.mail), this.power, this.bin);
  }

  #device() {
    this.quiet = el("p", { class: "quiet", text: "No notifications" });
    this.waiting = el("span", { class: "chip waiting", hidden: true });
    this.goneTitle = el("p", { class: "gone-title" });
    this.again = el("button", { type: "button", class: "button primary", text: "Open the app" });
    this.again.addEventListener("click", () => this.actions.openApp(this.phone));
    this.gone = el(
      "div",
      { class: "gone", hidden: true },
      this.goneTitle,
      el("p", { text: this.goneText }),
      this.again,
    );
    const { above, below } = this.parts;
    this.screen = el(
      "div",
      { class: `screen wallpaper-${this.wallpaper}` },
      ...above,
      this.shelf.root,
      this.quiet,
      this.gone,
      ...below,
    );
    this.dark = el("div", { class: "dark", hidden: true }, icon("moon"), el("span", { text: "Off" }), this.waiting);
    this.device = el("div", { class: "device" }, this.screen, this.dark);
    return this.device;
  }

  dock() {
    this.badge = el("span", { class: "badge", hidden: true });
    this.app = el("button", { type: "button", class: "dock-app" }, appIcon(this.phone, "dock-icon"), this.badge);
    this.app.addEventListener("click", () => this.actions.openApp(this.phone));
    const others = ["compass", "note", "aperture"].map((name) =>
      el("span", { class: "dock-other", "aria-hidden": "true" }, icon(name)));
    return el("div", { class: "dock" }, this.app, ...others);
  }

  #facts() {
    this.side = el("span", { class: "chip" });
    this.appId = el("span", { class: "fact-app" });
    this.token = el("code", { class: "fact-token" });
    return el(
      "footer",
      { class: "phone-facts" },
      el("p", {}, this.side, this.appId),
      el("p", { class: "fact-line" }, this.token, copyButton(() => this.phone.token, this.copyText)),
    );
  }

  get sideText() {
    return this.phone.side;
  }

  /** How many notifications leave room for a large clock. */
  get roomy() {
    return 3;
  }

  get copyText() {
    return "Copy the device token";
  }

  update(phone) {
    const former = this.phone;
    this.phone = phone;
    write(this.heading, phone.name);
    write(this.mail, phone.mail ?? "no mail address");
    write(this.side, this.sideText);
    write(this.appId, phone.package ?? phone.app);
    write(this.token, phone.token);
    this.token.title = phone.token;
    this.bin.setAttribute("aria-label", `Remove ${phone.name}`);
    this.bin.title = "Remove this phone";
    this.#showPower();
    this.#showBadge();
    this.#showGone();
    if (former !== phone || !this.isDrawn) this.#showCards();
    this.isDrawn = true;
  }

  #showCards() {
    const { cards } = this.phone;
    this.shelf.update(this.phone);
    this.quiet.hidden = cards.length > 0 || this.phone.is_gone;
    this.screen.toggleAttribute("data-crowded", cards.length > this.roomy);
  }

  #showPower() {
    const { is_on: isOn, waiting, name } = this.phone;
    this.power.setAttribute("aria-checked", String(isOn));
    this.power.setAttribute("aria-label", `${name} is switched on`);
    this.power.title = isOn ? "Switch the phone off" : "Switch the phone on";
    this.device.dataset.power = isOn ? "on" : "off";
    this.screen.toggleAttribute("inert", !isOn);
    this.dark.hidden = isOn;
    this.waiting.hidden = !waiting;
    write(this.waiting, `${waiting} waiting`);
  }

  #showGone() {
    const { is_gone: isGone, app_name: name } = this.phone;
    const hadFocus = this.gone.contains(document.activeElement);
    this.gone.hidden = !isGone;
    write(this.goneTitle, `${name} is gone`);
    this.app.toggleAttribute("data-gone", isGone);
    if (hadFocus && !isGone) this.app.focus({ preventScroll: true });
  }

  #showBadge() {
    const { badge, app_name: name } = this.phone;
    this.badge.hidden = !badge;
    write(this.badge, badge > 999 ? "999+" : String(badge ?? ""));
    this.app.setAttribute("aria-label", badge ? `${name}, badge ${badge}: open the app` : `${name}: open the app`);
    this.app.title = badge && !this.keepsBadge ? "Open the app: clears its badge" : "Open the app: it registers itself";
  }

  /** Whether the badge counts the notifications, so that opening the app leaves it. */
  get keepsBadge() {
    return false;
  }

  /** Swing the small bell on top of the screen for a moment. */
  ring() {
    this.device.removeAttribute("data-ringing");
    void this.device.offsetWidth; // the animation starts anew only after a layout in between
    this.device.setAttribute("data-ringing", "");
    clearTimeout(this.ringing);
    this.ringing = setTimeout(() => this.device.removeAttribute("data-ringing"), RING_MILLISECONDS);
  }
}

function statusBar() {
  return el(
    "div",
    { class: "status-bar", "aria-hidden": "true" },
    el("span", { class: "status-time", "data-clock": true }),
    el("span", { class: "island" }, icon("bell", "island-bell")),
    el("span", { class: "status-icons" }, icon("signal", "status-signal"), icon("battery", "status-battery")),
  );
}
