/** Puts the page together: the live state, the phones, the inspector, and what people do. */

import { AndroidView } from "./android.js";
import { api, listen } from "./api.js";
import { ConnectPanel } from "./connect.js";
import { askForPhone, askToRemove } from "./dialogs.js";
import { byId, el, follow, write } from "./dom.js";
import { FaultsPanel } from "./faults.js";
import { Inspector } from "./inspector.js";
import { PhoneView } from "./phone.js";
import { setSound, strike } from "./sound.js";
import { Store } from "./store.js";
import { setUpTabs } from "./tabs.js";
import { refreshAges, refreshClocks } from "./time.js";
import { BrowserView } from "./webview.js";

const LINK_TEXTS = { connecting: "Connecting", live: "Live", lost: "Disconnected, trying again" };
const AGES_MILLISECONDS = 10_000;
const CLOCKS_MILLISECONDS = 1000;
const TOAST_MILLISECONDS = 6000;

const store = new Store();
const phoneViews = new Map();

/** Do what was asked for, and say so when the twin refuses. */
async function attempt(promise) {
  try {
    return await promise;
  } catch (problem) {
    toast(problem.message);
    return null;
  }
}

function toast(text) {
  const note = el("p", { class: "toast", text });
  byId("toasts").append(note);
  setTimeout(() => note.remove(), TOAST_MILLISECONDS);
}

const phoneActions = {
  open: (phone, card) => attempt(api.openCard(phone.id, card.id)),
  dismiss: (phone, card) => attempt(api.dismissCard(phone.id, card.id)),
  switch: (phone, isOn) => attempt(api.changePhone(phone.id, { is_on: isOn })),
  openApp: (phone) => attempt(api.openApp(phone.id)),
  setChannel: (phone, channel, isOn) => attempt(api.setChannel(phone.id, channel.id, isOn)),
  remove: async (phone) => (await askToRemove(phone)) && attempt(api.removePhone(phone.id)),
};

function showPhones() {
  const phones = [...store.phones.values()];
  follow(byId("phones"), phones, (phone) => phone.id, (phone) => {
    const View = { android: AndroidView, web: BrowserView }[phone.platform] ?? PhoneView;
    const view = new View(phone, phoneActions);
    phoneViews.set(phone.id, view);
    return view;
  });
  for (const id of phoneViews.keys()) if (!store.phones.has(id)) phoneViews.delete(id);
  byId("phones").dataset.count = String(phones.length);
  byId("no-phones").hidden = phones.length > 0 || !isLoaded;
}

let isLoaded = false;

/** The other pages of this server, where one runs beside the twin. */
function showLinks(links) {
  const safe = Object.entries(links).filter(([, address]) => /^https?:/.test(address));
  byId("links").hidden = safe.length === 0;
  byId("links").replaceChildren(...safe.map(([name, address]) => el("a", { href: address, text: name })));
}

function applyState(state) {
  isLoaded = true;
  store.replace(state);
  showLinks(state.links ?? {});
}

function applyEvent(kind, data) {
  const former = kind === "phone" ? store.phones.get(data.id) : null;
  store.apply(kind, data);
  if (former) tellGone(former, data);
  if (former) arrivals(former, data).forEach((card) => receive(data, card));
}

/** The cards that are new or were replaced between two pictures of a phone. */
function arrivals(former, phone) {
  const known = new Map(former.cards.map((card) => [card.id, card.replaced]));
  return phone.cards.filter((card) => known.get(card.id) !== card.replaced);
}

/** A refused push may have told that the app is gone. */
function tellGone(former, phone) {
  if (phone.is_gone && !former.is_gone) {
    write(byId("announcer"), `${phone.name}: ${phone.app_name} is gone. Open the app to register it again.`);
  } else if (former.is_gone && !phone.is_gone) {
    write(byId("announcer"), `${phone.name}: ${phone.app_name} is registered again, with a new token.`);
  }
}

function receive(phone, card) {
  write(byId("announcer"), `${phone.name}, ${phone.app_name}: ${[card.title, card.subtitle, card.body].filter(Boolean).join(". ")}`);
  if (!card.sound || card.interruption_level === "passive") return;
  phoneViews.get(phone.id)?.ring();
  strike();
}

function showLink(link) {
  document.documentElement.dataset.link = link;
  const place = byId("link-state");
  place.dataset.link = link;
  write(place, LINK_TEXTS[link]);
}

function setUpSound() {
  const button = byId("sound");
  button.addEventListener("click", () => {
    const isOn = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(isOn));
    button.title = isOn ? "Sound is on" : "Sound is off";
    button.querySelector("use").setAttribute("href", isOn ? "#bell" : "#bell-off");
    setSound(isOn);
  });
}

function setUpTheme() {
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    button.title = isDark() ? "Use the light appearance" : "Use the dark appearance";
  };
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("handbell-twin-theme", theme);
    show();
  });
  system.addEventListener("change", show);
  show();
}

/** Make a service account; it is listed at once. */
async function addAccount(wishes) {
  const file = await attempt(api.makeServiceAccount(wishes));
  if (file) store.addAccount(file);
  return file;
}

function setUpAdding() {
  const ask = () => askForPhone(store.apps, api.addPhone);
  byId("add-phone").addEventListener("click", ask);
  byId("add-first-phone").addEventListener("click", ask);
}

store.subscribe(showPhones);
new Inspector(store);
new ConnectPanel(store, { makeServiceAccount: addAccount });
new FaultsPanel(store, {
  add: api.addFault,
  remove: (fault) => attempt(api.removeFault(fault.id)),
  removeAll: () => attempt(api.removeAllFaults()),
});
setUpTabs();
setUpSound();
setUpTheme();
setUpAdding();
setInterval(refreshAges, AGES_MILLISECONDS);
setInterval(() => refreshClocks(), CLOCKS_MILLISECONDS);
listen({ onState: applyState, onEvent: applyEvent, onLink: showLink });
