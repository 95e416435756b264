// The form of Compose while somebody types: the phone at once, bytes and people from the server.
//
// It is sent by this script, which puts the answer in the page's place: so that Back leads to the
// form, and what was written outlives a sign-in that has ended.

import { announce, complain, fragment, localTimes, moment, parsed, ready } from "./console.js";
import { adopt, drop, forget, isKnown, keep, kept, others } from "./drafts.js";
import { carryOn, goOn, isWritten, placeOf, written } from "./writing.js";

const KEEP_MILLISECONDS = 200;
const main = document.getElementById("main");
document.documentElement.classList.add("scripted");

let form = null;
let card = null;
let latestSaid = null;
let heldSaid = null;

const text = (name) => form.elements[name]?.value?.trim() ?? "";

/** Whether a template makes the texts, which only the server can. */
const isMade = () => text("template") !== "";

function show(selector, said, within = card) {
  const element = within.querySelector(selector);
  element.textContent = said;
  element.hidden = !said;
}

// The phone

const LEVELS = { "time-sensitive": "Time sensitive", critical: "Critical" };

const chosenLanguage = () => document.getElementById("preview-language")?.value ?? "";

const beside = () => document.querySelector(".beside");
const chosenDevice = () => beside().querySelector("[name=device]:checked")?.value
  ?? beside().querySelector(".bytes").dataset.service;

/** The notification in its languages, its own text first, as the chosen device gets it. */
const wordings = () => latestSaid?.services.find((one) => one.service === chosenDevice())?.languages ?? [];

function drawn() {
  const [own, ...others] = wordings();
  const language = others.find((one) => one.language === chosenLanguage());
  if (chosenLanguage() && language) draw(language.shown);
  else if (own && (isMade() || own.cuts.length)) draw(own.shown);
  else if (!isMade()) draw();
}

/** Show the chosen device: its drawing, its bytes, and the virtual one that has arrived things. */
function choose() {
  const device = chosenDevice();
  beside().dataset.device = device;
  beside().querySelector(".handset").dataset.device = device;
  const virtual = document.getElementById("virtual-phone");
  if (virtual?.dataset.live && beside().querySelector("[name=device]")) {
    const address = new URL(virtual.dataset.live, location);
    if (address.searchParams.get("service") !== device) {
      address.search = new URLSearchParams({ service: device, mail: text("test_to") });
      virtual.dataset.live = address.pathname + address.search;
      virtual.replaceChildren();
      delete virtual.dataset.newest;
    }
  }
  drawn();
}

/** Go on to show the device that was shown before the page was put anew. */
function chooseAgain(device) {
  const there = beside().querySelector(`[name=device][value="${device}"]`);
  if (!there || there.checked) return;
  there.checked = true;
  choose();
}

/** Let the preview show each language that is written. */
function offerLanguages(languages) {
  const choice = document.getElementById("preview-language");
  const names = ["", ...languages.map((one) => one.language)];
  const chosen = names.includes(choice.value) ? choice.value : "";
  choice.replaceChildren(...names.map((name) => new Option(name || "As written", name, false, name === chosen)));
  document.getElementById("look-language").hidden = names.length < 2;
}

function draw(texts = { title: text("title"), subtitle: text("subtitle"), body: text("body") }) {
  show(".push-title", texts.title);
  show(".push-subtitle", texts.subtitle);
  show(".push-body", texts.body);
  show(".push-link span", text("url"));
  card.querySelector(".push-link").hidden = !text("url");
  card.querySelector(".push-bell").hidden = !text("sound");
  show(".push-level", LEVELS[text("interruption_level")] ?? "");
  card.dataset.level = text("interruption_level") || "active";
  const badge = document.getElementById("draft-badge");
  badge.textContent = Number(text("badge")) > 999 ? "999+" : text("badge");
  badge.hidden = !Number(text("badge"));
}

function picture() {
  const image = card.querySelector(".push-image");
  const address = text("image_url");
  const isShown = /^https:\/\/\S+\.\S+/.test(address);
  if (isShown && image.getAttribute("src") !== address) image.src = address;
  image.hidden = !isShown;
}

// What the server says

let asking = null;
let latest = 0;

function list(element, lines) {
  const items = lines.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  });
  element?.replaceChildren(...items);
}

const number = new Intl.NumberFormat("en");

/** Tell what one push service makes of it. */
function tellOne({ service, notes, languages: [own, ...others] }) {
  const block = document.querySelector(`.bytes[data-service="${service}"]`);
  if (!block) return;
  const part = (name) => block.querySelector(`[data-part=${name}]`);
  if (own?.limit) {
    part("told").textContent = `${number.format(own.size)} of ${number.format(own.limit)} bytes`;
    const meter = block.querySelector("meter");
    meter.max = own.limit;
    meter.high = own.limit * 0.85;
    meter.value = own.size;
  }
  part("payload").textContent = own?.payload ?? "";
  list(part("notes"), notes);
  list(part("cuts"), own?.cuts ?? []);
  list(part("sizes"), others.map((one) => `${one.language}: ${number.format(one.size)} bytes`));
}

function tell(said) {
  latestSaid = said;
  said.services.forEach(tellOne);
  offerLanguages(wordings().slice(1));
  drawn();
  const reaches = document.getElementById("reaches");
  const sentence = said.reaches || (text("recipients") ? "Not everybody named is understood yet." : "Nobody is named yet.");
  if (reaches && reaches.textContent !== sentence) reaches.textContent = sentence;
  list(document.getElementById("left-out"), said.left_out);
  faults(said.faults, said.unsaid);
  const held = document.getElementById("held");
  if (heldSaid === said.held) return;
  heldSaid = said.held;
  held.replaceChildren(...document.adoptNode(parsed(said.held).body).childNodes);
  localTimes(held);
}

// What the server is not asked about while somebody types: it stays until the form is sent again.
const UNASKED = new Set(["test_to", "send_at", "zone", "to"]);

function faults(found, unsaid) {
  for (const old of form.querySelectorAll(".fault[id$=-fault]")) {
    const name = old.id.slice(0, -"-fault".length);
    if (found[name] || UNASKED.has(name) || unsaid.includes(name)) continue;
    document.getElementById(name)?.removeAttribute("aria-invalid");
    old.remove();
    mended(name);
  }
  for (const [name, sentence] of Object.entries(found)) {
    const input = document.getElementById(name);
    if (!input || !form.contains(input)) continue;
    let line = document.getElementById(`${name}-fault`);
    if (!line) {
      line = document.createElement("p");
      line.id = `${name}-fault`;
      line.className = "fault";
      input.closest(".field")?.append(line);
    }
    if (line.textContent !== sentence) line.textContent = sentence;
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", `${name}-fault ${name}-hint`);
  }
}

/** Take what was mended off the summary above the form, and the summary with its last line. */
function mended(name) {
  const summary = form.querySelector(".notice.bad[data-focus]");
  summary?.querySelector(`a[href="#${CSS.escape(name)}"]`)?.closest("p")?.remove();
  if (summary && !summary.querySelector("p")) summary.remove();
}

async function ask() {
  asking?.abort();
  asking = new AbortController();
  const mine = ++latest;
  const reach = document.getElementById("reach");
  reach?.setAttribute("aria-busy", "true");
  try {
    const answer = await fragment(form.dataset.preview, {
      method: "POST",
      body: new FormData(form),
      signal: asking.signal,
    });
    if (answer.ok && mine === latest) tell(await answer.json());
  } catch (error) {
    if (error.name !== "AbortError") announce("The server could not be reached.");
  } finally {
    if (mine === latest) reach?.removeAttribute("aria-busy");
  }
}

// Sending, and what the answer shows

async function send(event) {
  event.preventDefault();
  const { target, submitter } = event;
  const draftKey = form?.dataset.draft ?? main.dataset.draft;
  if (form) keep(form);
  if (target.dataset.busy) return;
  target.dataset.busy = "1";
  submitter?.setAttribute("aria-busy", "true");
  const [sent, pressed] = [written(form), document.activeElement];
  try {
    const answer = await fragment(submitter?.getAttribute("formaction") ?? target.action, {
      asks: true,
      method: "POST",
      body: new FormData(target, submitter),
    });
    const next = answer.headers.get("X-Location");
    if (next) leave(next, draftKey);
    else put(await answer.text(), draftKey, sent, pressed);
  } catch (error) {
    if (error.name !== "AbortError") announce("The server could not be reached. What you wrote is kept.");
  } finally {
    delete target.dataset.busy;
    submitter?.removeAttribute("aria-busy");
  }
}

/** Go on to what became of it; Back leads from there to an empty form. */
function leave(next, draftKey) {
  forget(draftKey);
  clearTimeout(keeping);
  clearTimeout(timer);
  latest += 1;
  form = null;
  if (location.hash) location.replace(next);
  else location.assign(next);
}

function put(html, draftKey, sent = new Map(), pressed = null) {
  const page = parsed(html);
  if (!page.querySelector("#compose, #confirm-send")) {
    complain(page);
    return;
  }
  const [late, place, device] = [written(form), placeOf(form, sent, pressed), form && chosenDevice()];
  document.title = page.title;
  main.replaceChildren(...document.adoptNode(page.getElementById("main")).childNodes);
  main.dataset.draft = draftKey;
  const isQuestion = document.getElementById("confirm-send") !== null;
  if (isQuestion && !location.hash) history.pushState(null, "", "#confirm");
  else if (!isQuestion && location.hash) history.back();
  begin();
  ready(main);
  document.dispatchEvent(new Event("handbell:shown"));
  if (form) carryOn(form, sent, late);
  if (form) chooseAgain(device);
  if (form && goOn(place)) return;
  (main.querySelector("[data-focus], [data-added]") ?? main).focus();
  scrollTo({ top: 0 });
}

// Back from the question leads to the form, which is kept.
addEventListener("popstate", () => {
  if (!location.hash && document.getElementById("confirm-send")) location.reload();
});

// Drafts

let keeping = 0;

function noteDraft() {
  clearTimeout(keeping);
  keeping = setTimeout(() => form && keep(form), KEEP_MILLISECONDS);
}

addEventListener("pagehide", () => {
  if (form?.dataset.dirty) keep(form);
});

/** Put the draft that was kept in the place of the form, unless it was sent meanwhile. */
async function restore() {
  const mine = kept(form);
  if (mine && (await bring(mine))) return;
  const elsewhere = others(form);
  if (isKnown(form)) {
    if (elsewhere.length && form) offer(elsewhere[0]);
    return;
  }
  for (const draft of elsewhere) if (await bring(draft)) return;
}

/** Put a draft in the place of the form; return false where it was sent meanwhile. */
async function bring(draft) {
  const [draftKey, named, once] = [form.dataset.draft, text("recipients"), form.elements.once.value];
  const isOwn = kept(form)?.place === draft.place;
  const fields = new FormData();
  for (const [name, value] of draft.fields) fields.append(name, value);
  if (named && !fields.get("recipients")) fields.set("recipients", named);
  fields.set("do", "restore");
  try {
    const answer = await fragment(form.action, { asks: true, method: "POST", body: fields });
    if (answer.status !== 200) {
      drop(draft.place);
      return false;
    }
    const html = await answer.text();
    // Whoever began to write meanwhile is not interrupted.
    if (form?.dataset.dirty) return true;
    // What the page has just said is not of the draft's time.
    const said = main.querySelector(":scope > .flash");
    put(html, draftKey);
    if (said) main.prepend(said);
    form.dataset.dirty = "1";
    if (!isOwn) {
      form.elements.once.value = once;
      adopt(form, draft);
    }
    tellRestored(draft.at, draftKey);
  } catch {
    // Kept as it is: the next look at the page brings it back.
  }
  return true;
}

function tellAbove(sentence, label, press) {
  const notice = document.createElement("div");
  notice.className = "notice plain restored";
  notice.setAttribute("role", "status");
  const line = document.createElement("p");
  line.textContent = sentence;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button small";
  button.textContent = label;
  button.addEventListener("click", press);
  notice.append(line, button);
  form.prepend(notice);
  return notice;
}

function tellRestored(at, draftKey) {
  tellAbove(`This is your draft of ${moment(at)}.`, "Begin anew", () => {
    forget(draftKey);
    form = null;
    location.assign(location.pathname);
  });
}

/** Offer a draft that was begun in another tab. */
function offer(draft) {
  const notice = tellAbove(`Another draft of yours, of ${moment(draft.at)}, is kept.`, "Go on with it", async () => {
    if (!(await bring(draft))) notice.remove();
  });
  form.addEventListener("input", () => notice.remove(), { once: true });
}

// Life

let timer = 0;

/** Bring the form, or the question, that the page shows to life. */
function begin() {
  form = document.getElementById("compose");
  card = document.getElementById("draft-card");
  latestSaid = null;
  heldSaid = null;
  latest += 1;
  clearTimeout(timer);
  document.getElementById("confirm-send")?.addEventListener("submit", send);
  if (!form) return;
  form.addEventListener("submit", send);
  form.addEventListener("input", () => {
    form.dataset.dirty = "1";
    if (!isMade() && !chosenLanguage()) draw();
    noteDraft();
    clearTimeout(timer);
    timer = setTimeout(() => { picture(); ask(); }, 300);
  });
  card.querySelector(".push-image").addEventListener("error", (event) => { event.target.hidden = true; });
  document.getElementById("preview-language")?.addEventListener("change", drawn);
  for (const one of beside().querySelectorAll("[name=device]")) one.addEventListener("change", choose);
  choose();
  // Another template has other variables: the server knows them.
  form.elements.template?.addEventListener("change", () => form.requestSubmit(form.querySelector('[value="edit"]')));
  // The browser's own zone, unless somebody wrote another one.
  const zone = form.elements.zone;
  if (zone && (!zone.value || zone.value === "UTC")) {
    zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  }
  if (matchMedia("(prefers-color-scheme: dark)").matches) document.getElementById("tone-dark").click();
  picture();
  if (document.getElementById("look-language").hidden === false) ask();
}

// Who is quicker than this script has begun all the same.
if (document.getElementById("compose") && isWritten(document.getElementById("compose"))) {
  document.getElementById("compose").dataset.dirty = "1";
}
begin();
form?.querySelector("[data-added]")?.focus();
if (form) restore();
