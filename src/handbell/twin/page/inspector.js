/** Every request the twin got, newest first, with what was sent and what became of it. */

import { byId, copyButton, el, follow, write } from "./dom.js";
import { jsonView } from "./json.js";
import { showAgo, timeOfDay } from "./time.js";

const MAX_BYTES = 4096;
const MAX_VOIP_BYTES = 5120;
const LONGEST_TITLE = 60;
const NO_PHONE = "-";
const WORDS = {
  shown: "Shown",
  sent: "Sent",
  silent: "Silent",
  stored: "Stored",
  refused: "Refused",
  discarded: "Discarded",
  fault: "Fault",
  checked: "Checked",
  token: "Access token",
};
const SIDES = { fcm: "FCM", oauth: "token endpoint", webpush: "Web Push" };

export class Inspector {
  #open = null;

  constructor(store) {
    this.store = store;
    this.list = byId("requests");
    this.filters = byId("filters");
    this.phoneFilter = byId("filter-phone");
    this.refusedFilter = byId("filter-refused");
    this.filters.addEventListener("change", () => this.update());
    this.filters.addEventListener("submit", (event) => event.preventDefault());
    store.subscribe(() => this.update());
  }

  update() {
    const { requests } = this.store;
    const matching = requests.filter((request) => this.#matches(request));
    this.filters.hidden = requests.length === 0;
    byId("first-steps").hidden = requests.length > 0;
    byId("no-match").hidden = requests.length === 0 || matching.length > 0;
    this.#offerPhones();
    follow(this.list, matching, keyOf, (request) => new Row(request, this));
    showCount(byId("count-requests"), requests.length);
  }

  nameOf(request) {
    const phone = this.store.phones.get(request.phone_id);
    if (phone) return phone.name;
    if (request.side === "oauth") return SIDES.oauth;
    if (request.side === "fcm" && !request.token) return SIDES.fcm;
    return request.phone_id ? "removed phone" : "unknown token";
  }

  toggle(row) {
    const former = this.#open;
    former?.fold();
    this.#open = former === row ? null : row;
    this.#open?.unfold();
  }

  #matches(request) {
    const wanted = this.phoneFilter.value;
    const isWanted = !wanted || (request.phone_id ?? NO_PHONE) === wanted;
    return isWanted && (!this.refusedFilter.checked || isRefused(request));
  }

  #offerPhones() {
    const chosen = this.phoneFilter.value;
    const offers = [["", "All phones"], ...[...this.store.phones.values()].map((phone) => [phone.id, phone.name]), [NO_PHONE, "Unknown tokens"]];
    const wanted = JSON.stringify(offers);
    if (this.offered === wanted) return;
    this.offered = wanted;
    this.phoneFilter.replaceChildren(...offers.map(([value, text]) => el("option", { value, text })));
    this.phoneFilter.value = offers.some(([value]) => value === chosen) ? chosen : "";
  }
}

/** A twin that was started anew counts its requests from one again: the time tells them apart. */
const keyOf = ({ id, at }) => `${at} ${id}`;

export function showCount(node, count) {
  node.hidden = count === 0;
  write(node, String(count));
}

const isRefused = (request) => request.status === null || request.status >= 400;

function toneOf({ status }) {
  if (status === null) return "lost";
  if (status < 400) return "good";
  return status < 500 ? "bad" : "trouble";
}

class Row {
  constructor(request, inspector) {
    this.request = request;
    this.inspector = inspector;
    const id = `request-${request.id}`;
    this.time = el("time", { class: "row-time" });
    this.phone = el("span", { class: "row-phone" });
    this.button = el(
      "button",
      { type: "button", class: "row", "aria-expanded": "false", "aria-controls": id },
      el("span", { class: `pill ${toneOf(request)}`, text: request.status === null ? "lost" : String(request.status) }),
      el("span", { class: "row-what", text: request.reason ?? WORDS[request.what] ?? request.what }),
      this.phone,
      this.time,
      el("span", { class: "row-verdict" }, titleOf(request), request.verdict, faultChip(request)),
    );
    this.details = el("div", { class: "details", id, hidden: true });
    this.root = el("li", { class: "request", "data-request": request.id, "data-what": request.what }, this.button, this.details);
    this.button.addEventListener("click", () => inspector.toggle(this));
  }

  update(request) {
    write(this.phone, this.inspector.nameOf(request));
    showAgo(this.time, request.at);
  }

  unfold() {
    this.button.setAttribute("aria-expanded", "true");
    this.details.replaceChildren(...detailsOf(this.request));
    this.details.hidden = false;
  }

  fold() {
    this.button.setAttribute("aria-expanded", "false");
    this.details.replaceChildren();
    this.details.hidden = true;
  }
}

const faultChip = ({ fault }) => (fault ? el("span", { class: "chip fault", text: `fault: ${fault}` }) : null);

/** What the sender called it: the title, or else the body, of a payload that has one. */
function titleOf({ payload }) {
  const alert = readAlert(payload);
  const text = typeof alert === "string" ? alert : alert?.title || alert?.body;
  if (typeof text !== "string" || !text) return null;
  return el("span", { class: "row-title", text: text.length > LONGEST_TITLE ? `${text.slice(0, LONGEST_TITLE)}…` : text });
}

function readAlert(payload) {
  try {
    const { aps, message, notification } = JSON.parse(payload);
    return aps?.alert ?? { ...notification, ...message?.notification, ...message?.android?.notification };
  } catch {
    return null;
  }
}

function detailsOf(request) {
  return [
    sizeBar(request),
    payloadView(request),
    factTable("Headers", Object.entries(request.headers)),
    factTable("Answer", answerFacts(request)),
  ];
}

function sizeBar({ size, headers, side }) {
  // FCM counts the keys and values of a message, not the request.
  if (side in SIDES) return el("p", { class: "size-text", text: `${size.toLocaleString()} bytes` });
  const limit = headers["apns-push-type"] === "voip" ? MAX_VOIP_BYTES : MAX_BYTES;
  const bar = el("meter", { class: "size-bar", min: "0", max: String(limit), high: String(limit * 0.9), value: String(size), "aria-label": "Payload size" });
  bar.classList.toggle("over", size > limit);
  return el(
    "div",
    { class: "size" },
    el("span", { class: "size-text", text: `${size.toLocaleString()} of ${limit.toLocaleString()} bytes` }),
    bar,
  );
}

function payloadView({ payload, side }) {
  const heading = el("h3", { text: side === "webpush" ? "Payload, as the browser decrypted it" : "Payload" });
  const unread = side === "webpush" ? "Only the browser can decrypt the payload." : "The payload is not UTF-8 text.";
  if (payload === null) return el("section", {}, heading, el("p", { class: "hint", text: unread }));
  if (payload === "") return el("section", {}, heading, el("p", { class: "hint", text: "The payload is empty." }));
  return el("section", {}, el("div", { class: "section-head" }, heading, copyButton(() => payload, "Copy the payload")), jsonView(payload));
}

function answerFacts(request) {
  return [
    ["status", request.status === null ? "none: the answer was lost" : String(request.status)],
    ["reason", request.reason],
    [request.side in SIDES ? "message" : "apns-id", request.push_id],
    ["apns-unique-id", request.unique_id],
    ["side", SIDES[request.side] ?? request.side],
    ["path", request.side in SIDES ? request.path : null],
    ["device token", request.token],
    ["received", timeOfDay(request.at)],
  ].filter(([, value]) => value);
}

function factTable(title, facts) {
  const rows = facts.map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row", text: name }), el("td", { text: value })));
  return el("section", {}, el("h3", { text: title }), el("table", { class: "facts", "aria-label": title }, el("tbody", {}, ...rows)));
}
