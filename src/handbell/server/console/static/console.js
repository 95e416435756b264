// What every page can do better with a script. Without one, all of it works by whole pages.

import { answered, signedIn, signInBeside } from "./presence.js";

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

/** Put the instants below an element into the reader's zone. */
export function localTimes(root = document) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const instant = new Date(element.dateTime);
    if (Number.isNaN(instant.getTime())) continue;
    element.title = exact.format(instant);
    if (!("ago" in element.dataset)) element.textContent = short.format(instant);
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

// A form with data-fragment="#id" replaces that element by the same one of the answer: what stands
// in other forms of the page stays.

async function replace(form, submitter) {
  const target = document.querySelector(form.dataset.fragment);
  const button = submitter ?? form.querySelector("button");
  button?.setAttribute("aria-busy", "true");
  target.setAttribute("aria-busy", "true");
  try {
    let answer = await fragment(form.action, {
      asks: true,
      method: form.method,
      body: new FormData(form, submitter ?? undefined),
    });
    const next = answer.headers.get("X-Location");
    if (next) answer = await fragment(next);
    const page = parsed(await answer.text());
    const fresh = page.querySelector(form.dataset.fragment);
    if (!fresh) {
      location.reload();
      return;
    }
    const adopted = document.adoptNode(fresh);
    target.replaceWith(adopted);
    alsoReplace(adopted, page);
    const said = page.querySelector(".flash p, [data-focus].notice.bad")?.closest(".notice");
    if (said) tellWithin(adopted, document.adoptNode(said));
    ready(adopted);
    if (adopted.dataset.said) announce(adopted.dataset.said);
  } catch (error) {
    if (error.name !== "AbortError") announce("The server could not be reached.");
  } finally {
    button?.removeAttribute("aria-busy");
    target.removeAttribute("aria-busy");
  }
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
  element.querySelector("h2")?.after(notice);
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
  if (form.dataset.sent) {
    delete form.dataset.sent;
    return;
  }
  event.preventDefault();
  sendOnce(form, event.submitter);
});

/** Send a form as a page once its sender is known to be signed in; a second click does not do it twice. */
async function sendOnce(form, submitter) {
  if (form.dataset.sending) return;
  form.dataset.sending = "1";
  setTimeout(() => delete form.dataset.sending, 4000);
  try {
    const token = (await signedIn()) ?? (await signInBeside());
    if (token === null) {
      delete form.dataset.sending;
      return;
    }
    form.dataset.sent = "1";
    form.requestSubmit(submitter);
  } catch {
    delete form.dataset.sending;
    announce("The server could not be reached.");
  }
}

/** Bring a new piece of a page to life. */
export function ready(root = document) {
  localTimes(root);
  for (const button of root.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
  for (const form of root.querySelectorAll("form[data-auto]")) form.requestSubmit();
}

ready();
// What stood on the page when it was loaded is not announced by itself.
const flash = document.querySelector(".flash p");
if (flash) {
  const said = flash.textContent;
  flash.textContent = "";
  setTimeout(() => { flash.textContent = said; }, 50);
}
document.querySelector("[data-focus]")?.focus();
