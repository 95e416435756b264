// What every page can do better with a script. Without one, all of it works by whole pages.

import { answered, signedIn, signInBeside } from "./presence.js";
import { carryForms } from "./writing.js";

const announcer = document.getElementById("announcer");

/** Say something in the live region. */
export function announce(text) {
  if (!announcer) return;
  announcer.textContent = "";
  requestAnimationFrame(() => { announcer.textContent = text; });
}

/**
 * Fetch a piece of a page.
 *
 * Where the sign-in has ended the page says so. With `asks` the operator signs in beside it, and what
 * was to be sent is sent then.
 */
export async function fragment(url, { asks = false, ...options } = {}) {
  const send = () => fetch(url, {
    ...options,
    headers: { "X-Fragment": "1", ...options.headers },
    credentials: "same-origin",
  });
  let answer;
  try {
    // The token of a form is that of its sign-in, which may be another one by now.
    const token = asks ? (await signedIn()) ?? (await signInBeside()) : "";
    if (token === null) throw new DOMException("signed out", "AbortError");
    if (token && options.body instanceof FormData) options.body.set("token", token);
    answer = await send();
  } catch (error) {
    if (error.name !== "AbortError") answered(false);
    throw error;
  }
  answered(true);
  if (answer.status === 401) {
    await signedIn();
    throw new DOMException("signed out", "AbortError");
  }
  return answer;
}

/** Parse a text as HTML; scripts in it do not run. */
export function parsed(text) {
  return new DOMParser().parseFromString(text, "text/html");
}

// Times, in the reader's own zone.

const day = { year: "numeric", month: "short", day: "numeric", hour: "numeric", minute: "2-digit", timeZoneName: "short" };
const exact = new Intl.DateTimeFormat(undefined, { ...day, second: "2-digit" });
const short = new Intl.DateTimeFormat(undefined, day);

/** Return an instant in the reader's zone, which stands beside it. */
export const moment = (at) => short.format(new Date(at));

/** Put the instants below an element into the reader's zone. */
export function localTimes(root = document) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const instant = new Date(element.dateTime);
    if (Number.isNaN(instant.getTime())) continue;
    element.title = exact.format(instant);
    if (!("ago" in element.dataset)) element.textContent = moment(instant);
    element.dataset.local = "";
  }
}

// A link with data-dialog leads to a page that asks; here it is asked in a dialog.

async function ask(link) {
  const answer = await fragment(link.href);
  const page = parsed(await answer.text());
  const form = page.querySelector("form[data-confirm]");
  if (!form) {
    location.assign(link.href);
    return;
  }
  const dialog = document.createElement("dialog");
  dialog.className = "dialog";
  dialog.setAttribute("aria-labelledby", "dialog-title");
  const title = document.createElement("h2");
  title.id = "dialog-title";
  title.textContent = page.querySelector("h1").textContent;
  dialog.append(title, document.adoptNode(form));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("[data-close]")) {
      event.preventDefault();
      dialog.close();
    }
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  // The browser gives the focus back as it closes the dialog. Done by us in "close", which comes
  // later, it would be taken from whatever the reader had gone on to.
  link.focus();
  dialog.showModal();
  dialog.querySelector("[data-close]")?.focus();
}

// Forms are sent by the script, and the answer takes the place of what the page shows: the address
// bar keeps an address that can be loaded again, and what stands in other forms stays.

/** Send a form once, however often it is pressed; `show` gets the answer. */
async function post(form, submitter, show) {
  if (form.dataset.sending) return;
  form.dataset.sending = "1";
  const button = submitter ?? form.querySelector("button");
  button?.setAttribute("aria-busy", "true");
  try {
    const answer = await fragment(submitter?.getAttribute("formaction") ?? form.action, {
      asks: true,
      method: "POST",
      body: new FormData(form, submitter ?? undefined),
    });
    await show(answer, answer.headers.get("X-Location"));
  } catch (error) {
    if (error.name !== "AbortError") announce("The server could not be reached.");
  } finally {
    delete form.dataset.sending;
    button?.removeAttribute("aria-busy");
  }
}

/** Have what a page says at its top announced: what comes with the page is not by itself. */
function sayFlash() {
  const flash = document.querySelector(".flash p");
  if (!flash) return;
  const said = flash.textContent;
  flash.textContent = "";
  setTimeout(() => { flash.textContent = said; }, 50);
}

const isHere = (address) => {
  const there = new URL(address, location.href);
  return there.pathname === location.pathname && there.search === location.search;
};

/** Send a form, and show the page that follows. */
const sendWhole = (form, submitter) => post(form, submitter, async (answer, next) => {
  if (next && (!isHere(next) || document.querySelector("#main form[data-own]"))) {
    location.assign(next);
    return;
  }
  const shown = next ? await fragment(next) : answer;
  takePlace(parsed(await shown.text()), form, next ? new URL(next, location.href).hash : "", shown.ok);
});

function takePlace(page, form, hash, isGood) {
  const [main, fresh] = [document.getElementById("main"), page.getElementById("main")];
  document.querySelector("dialog[open]")?.close();
  if (!fresh || (!isGood && !standsOn(fresh, form))) {
    complain(page);
    return;
  }
  document.title = page.title;
  document.querySelector(".side").replaceWith(document.adoptNode(page.querySelector(".side")));
  document.adoptNode(fresh);
  carryForms(main, fresh, form);
  main.replaceChildren(...fresh.childNodes);
  ready(main);
  document.dispatchEvent(new Event("handbell:shown"));
  const [meant, place] = [main.querySelector("[data-focus]"), hash && document.getElementById(hash.slice(1))];
  (meant ?? main).focus({ preventScroll: true });
  if (place && !meant) place.scrollIntoView();
  else scrollTo({ top: 0 });
  sayFlash();
}

const standsOn = (element, form) =>
  [...element.querySelectorAll("form")].some((one) => one.getAttribute("action") === form.getAttribute("action"));

/** Say above the page what an answer complains of; what was written stays as it is. */
export function complain(page, element = document.getElementById("main")) {
  const notice = page.querySelector(".notice.bad") ?? document.createElement("div");
  if (!notice.textContent) {
    notice.className = "notice bad";
    notice.append(Object.assign(document.createElement("p"), { textContent: page.body.textContent.trim() }));
  }
  tellWithin(element, document.adoptNode(notice));
  notice.scrollIntoView({ block: "nearest" });
}

/** Send a form with data-fragment="#id", which replaces that element by the same one of the answer. */
const replace = (form, submitter) => post(form, submitter, async (answer, next) => {
  const selector = form.dataset.fragment;
  const target = document.querySelector(selector);
  target.setAttribute("aria-busy", "true");
  try {
    const follow = next && "stays" in form.dataset ? location.pathname + location.search : next;
    const page = parsed(await (follow ? await fragment(follow) : answer).text());
    const said = page.querySelector(".flash p, .notice.bad[data-focus], .notice.bad[role=alert]")?.closest(".notice");
    const fresh = page.querySelector(selector);
    if (!fresh) {
      complain(page, target);
      return;
    }
    const adopted = document.adoptNode(fresh);
    const hadFocus = target.contains(document.activeElement);
    target.replaceWith(adopted);
    alsoReplace(adopted, page);
    if (said) tellWithin(adopted, document.adoptNode(said));
    ready(adopted);
    document.dispatchEvent(new Event("handbell:shown"));
    if (hadFocus) goBack(adopted, submitter);
    if (adopted.dataset.said) announce(adopted.dataset.said);
  } finally {
    target.removeAttribute("aria-busy");
  }
});

/** Put the focus where it was in what was replaced: on what is wrong, or on the same button. */
function goBack(element, submitter) {
  const label = submitter?.textContent.trim();
  const same = [...element.querySelectorAll("button")].find((one) => one.textContent.trim() === label);
  (element.querySelector("[data-focus]") ?? same ?? element.querySelector("button"))?.focus({ preventScroll: true });
}

/** Bring the elements up to date that `data-also` of a replaced one names. */
function alsoReplace(fresh, page) {
  for (const id of (fresh.dataset.also ?? "").split(" ")) {
    const [there, here] = [id && page.getElementById(id), id && document.getElementById(id)];
    if (there && here) here.replaceWith(document.adoptNode(there));
  }
}

/** Say what a form came to at the place where it was sent. */
function tellWithin(element, notice) {
  for (const old of document.querySelectorAll(".main > .flash, .told-within")) old.remove();
  notice.classList.add("told-within");
  const heading = element.querySelector("h2");
  if (element.id === "main") element.prepend(notice);
  else if (heading) heading.after(notice);
  else (element.closest(".head") ?? element).before(notice);
  announce(notice.textContent.replace(/\s+/g, " ").trim());
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-dialog]");
  if (link && !event.metaKey && !event.ctrlKey && !event.shiftKey) {
    event.preventDefault();
    ask(link).catch(() => location.assign(link.href));
    return;
  }
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    const source = document.getElementById(copy.dataset.copy);
    navigator.clipboard.writeText(source.textContent).then(
      () => announce("Copied."),
      () => {
        getSelection().selectAllChildren(source);
        announce("Copy it with the keyboard: it is selected.");
      },
    );
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const menu = document.querySelector("details.menu[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.matches("[data-own], [data-plain]") || event.defaultPrevented) return;
  if (form.matches("[data-fragment]")) {
    event.preventDefault();
    replace(form, event.submitter);
    return;
  }
  if (form.method !== "post" || !document.body.dataset.signIn) return;
  event.preventDefault();
  sendWhole(form, event.submitter);
});

/** Bring a new piece of a page to life. */
export function ready(root = document) {
  localTimes(root);
  for (const button of root.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
  for (const form of root.querySelectorAll("form[data-auto]")) form.requestSubmit();
}

ready();
sayFlash();
document.querySelector("[data-focus]")?.focus();
