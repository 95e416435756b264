/** A virtual Android phone: its shade of notifications, its channels, its home row. */

import { el, follow, icon, write } from "./dom.js";
import { PhoneView } from "./phone.js";
import { Shade } from "./shade.js";

/** Draws one Android phone; see PhoneView, whose constructor calls methods: none is private here. */
export class AndroidView extends PhoneView {
  makeShelf(actions) {
    return new Shade({ ...actions, channels: () => this.showChannels(true) });
  }

  get parts() {
    const glance = el(
      "div",
      { class: "glance", "aria-hidden": "true" },
      el("span", { class: "glance-clock", "data-clock": true }),
      el("span", { class: "glance-date", "data-date": true }),
    );
    return { above: [statusBar(), glance], below: [this.dock(), this.makeSheet()] };
  }

  get goneText() {
    return "FCM has answered UNREGISTERED: the registration token is gone. Opened, the app registers with a new one.";
  }

  get sideText() {
    return `FCM · ${this.phone.project}`;
  }

  get roomy() {
    return 1;
  }

  get copyText() {
    return "Copy the registration token";
  }

  get keepsBadge() {
    return true;
  }

  update(phone) {
    super.update(phone);
    this.updateChannels();
  }

  /** The sheet with a switch for each channel, as the system's settings have it. */
  makeSheet() {
    this.channelList = el("ul", { class: "channel-list" });
    this.noChannel = el("p", { class: "channel-hint", text: "The app has no channel yet: it makes one for the first notification." });
    const done = el("button", { type: "button", class: "shade-button", text: "Done" });
    done.addEventListener("click", () => this.showChannels(false));
    const title = el("h3", { class: "channel-title", id: `channels-${this.phone.id}`, text: "Notification channels" });
    this.sheet = el(
      "div",
      { class: "channel-sheet", role: "group", "aria-labelledby": title.id, hidden: true },
      title,
      this.noChannel,
      this.channelList,
      done,
    );
    this.sheet.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.showChannels(false);
    });
    return this.sheet;
  }

  showChannels(isShown) {
    this.sheet.hidden = !isShown;
    if (isShown) this.sheet.querySelector("button")?.focus({ preventScroll: true });
    else this.shelf.manage.focus({ preventScroll: true });
  }

  updateChannels() {
    const { channels } = this.phone;
    this.noChannel.hidden = channels.length > 0;
    follow(this.channelList, channels, ({ id }) => id, (channel) => new ChannelRow(channel, this));
  }
}

class ChannelRow {
  constructor(channel, view) {
    this.power = el(
      "button",
      { type: "button", role: "switch", class: "switch", "aria-label": `Channel ${channel.id}` },
      el("span", { class: "switch-knob" }),
    );
    this.power.addEventListener("click", () => view.actions.setChannel(view.phone, this.channel, !this.channel.is_on));
    this.state = el("span", { class: "channel-state" });
    const text = el("span", { class: "channel-text" }, el("span", { class: "channel-name", text: channel.id }), this.state);
    this.root = el("li", { class: "channel-row", "data-channel": channel.id }, text, this.power);
  }

  update(channel) {
    this.channel = channel;
    this.power.setAttribute("aria-checked", String(channel.is_on));
    write(this.state, channel.is_on ? "Shown" : "Blocked: nothing of it appears");
  }
}

function statusBar() {
  return el(
    "div",
    { class: "android-bar", "aria-hidden": "true" },
    el("span", { class: "status-time", "data-clock": true }),
    el("span", { class: "camera" }, icon("bell", "island-bell")),
    el("span", { class: "status-icons" }, icon("signal", "status-signal"), icon("battery", "status-battery")),
  );
}
