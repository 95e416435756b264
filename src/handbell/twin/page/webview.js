/** A browser: a window with a tab of the app's page, over which its notifications appear. */

import { appIcon } from "./appicon.js";
import { el } from "./dom.js";
import { PhoneView } from "./phone.js";

const REAL = "browser";

/** Draws one browser; a real one, which has subscribed here, can't be switched from this page. */
export class BrowserView extends PhoneView {
  get parts() {
    const tab = el(
      "div",
      { class: "browser-tab", "aria-hidden": "true" },
      appIcon(this.phone, "browser-icon"),
      el("span", { text: this.phone.app_name }),
    );
    return { above: [el("div", { class: "browser-bar" }, tab)], below: [this.dock()] };
  }

  get goneText() {
    return "The push service has answered 410: the subscription has ended. Opened, the page subscribes anew.";
  }

  get sideText() {
    return this.phone.kind === REAL ? "Web Push · a real browser" : "Web Push";
  }

  get copyText() {
    return "Copy the endpoint";
  }

  update(phone) {
    super.update(phone);
    this.power.hidden = this.again.hidden = this.app.hidden = phone.kind === REAL;
  }
}
