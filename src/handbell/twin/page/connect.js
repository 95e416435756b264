/** How to send the first notification, and where the twin can be reached. */

import { byId, copyButton, el } from "./dom.js";

const USUAL_PROJECT = "handbell-twin";

const MAIL = "test@4d.com";
const PLAIN_WORD = /^[\w.+@-]+$/;

/** Draw the first steps and the addresses anew whenever what they name has changed. */
export class ConnectPanel {
  constructor(store, { makeServiceAccount }) {
    this.store = store;
    this.makeServiceAccount = makeServiceAccount;
    store.subscribe(() => this.update());
  }

  update() {
    const { accounts, address, keys, apps, phones } = this.store;
    const mail = [...phones.values()].find((phone) => phone.mail)?.mail ?? MAIL;
    const drawn = JSON.stringify([accounts, address, keys, apps, mail]);
    if (this.drawn === drawn) return;
    this.drawn = drawn;
    byId("first-steps").replaceChildren(
      el("h2", { text: "Nothing was sent yet" }),
      el("p", { text: "Send the first notification and watch it arrive on the phone, live." }),
      ...snippets(mail),
    );
    byId("panel-connect").replaceChildren(
      el("h2", { text: "Send a notification" }),
      ...snippets(mail),
      el("h2", { text: "Any other client" }),
      el("p", { class: "hint", text: "Give it one of these addresses instead of the push service’s, and this authority to trust." }),
      addresses(address),
      ...this.#account(),
      ...known("Keys it accepts", keys.map(({ key_id: key, team_id: team }) => `${key}, team ${team}`)),
      ...known("Service accounts it accepts", accounts.map(({ client_email: email, project }) => `${email}, project ${project}`)),
      ...known("Apps", apps.map(({ id, name }) => `${name}, ${id}`)),
    );
  }

  /** A form that makes a service account and hands its key file over as a download. */
  #account() {
    const project = el("input", { name: "project", autocomplete: "off", spellcheck: "false", maxlength: "30", value: this.store.accounts[0]?.project ?? USUAL_PROJECT });
    const form = el(
      "form",
      { class: "form account-form", "aria-label": "New service account" },
      el("label", { class: "field" }, el("span", { text: "Google project" }), project),
      el("button", { type: "submit", class: "button", text: "Download a key file" }),
    );
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const file = await this.makeServiceAccount({ project: project.value.trim() });
      if (file) download(`${file.project_id}-twin.json`, file);
    });
    return [
      el("h2", { text: "A service account" }),
      el("p", { class: "hint", text: "A key file as Google’s console gives it. Only this twin knows the account." }),
      form,
    ];
  }
}

function download(name, content) {
  const blob = new Blob([`${JSON.stringify(content, null, 2)}\n`], { type: "application/json" });
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address));
}

function snippets(mail) {
  return [
    snippet("In a terminal", `handbell send ${quoted(mail)} --title "This is title" --body "Here is the content of this notification"`),
    snippet("In Python", `from handbell import PushNotification

push = PushNotification()
response = push.send(
    {"title": "This is title",
     "body": "Here is the content of this notification"},
    ${JSON.stringify(mail)})`),
  ];
}

function snippet(title, text) {
  return el(
    "figure",
    { class: "snippet" },
    el("figcaption", {}, title, copyButton(() => text, `Copy: ${title.toLowerCase()}`)),
    el("pre", { class: "code", tabindex: "0" }, ...words(text)),
  );
}

/** The text with each word unbreakable: an option like --body must not be torn at its hyphens. */
function words(text) {
  return text.split(/(\s+)/).map((part) => (part.trim() ? el("span", { class: "word", text: part }) : part));
}

const quoted = (word) => (PLAIN_WORD.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

function addresses(address) {
  const facts = [
    ["APNs, production", address.production_url],
    ["APNs, development", address.development_url],
    ["FCM", address.fcm_url],
    ["FCM’s access tokens", address.oauth_url],
    ["Web Push", address.webpush_url],
    ["For a browser", address.webpush_socket_url],
    ["Authority", address.ca_file],
  ];
  const rows = facts.filter(([, value]) => value).map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row", text: name }), el("td", {}, el("span", { text: value }), copyButton(() => value, `Copy: ${name}`))));
  return el("table", { class: "facts", "aria-label": "Addresses" }, el("tbody", {}, ...rows));
}

function known(title, lines) {
  if (lines.length === 0) return [];
  return [el("h2", { text: title }), el("ul", { class: "plain-list" }, ...lines.map((text) => el("li", { text })))];
}
