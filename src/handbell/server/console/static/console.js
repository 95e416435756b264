// What every page can do better with a script. Without one, all of it works by whole pages.

const announcer = document.getElementById("announcer");

/** Say something in the live region. */
export function announce(text) {
  if (!announcer) return;
  announcer.textContent = "";
  requestAnimationFrame(() => { announcer.textContent = text; });
}

/** Fetch a piece of a page. Signed out meanwhile, the whole page is loaded anew. */
export async function fragment(url, options = {}) {
  const answer = await fetch(url, {
    ...options,
    headers: { "X-Fragment": "1", ...options.headers },
    credentials: "same-origin",
  });
  if (answer.status === 401) {
    location.reload();
    throw new Error("signed out");
  }
  return answer;
}

/** Parse a text as HTML; scripts in it do not run. */
export function parsed(text) {
  return new DOMParser().parseFromString(text, "text/html");
}

// Times, in the reader's own zone.

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const short = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

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

// A form with data-fragment="#id" replaces that element by the same one of the answer.

async function replace(form, submitter) {
  const target = document.querySelector(form.dataset.fragment);
  const button = submitter ?? form.querySelector("button");
  button?.setAttribute("aria-busy", "true");
  target.setAttribute("aria-busy", "true");
  try {
    const answer = await fragment(form.action, {
      method: form.method,
      body: new FormData(form, submitter ?? undefined),
    });
    const page = parsed(await answer.text());
    const fresh = page.querySelector(form.dataset.fragment);
    if (!fresh) {
      location.reload();
      return;
    }
    const adopted = document.adoptNode(fresh);
    target.replaceWith(adopted);
    ready(adopted);
    if (adopted.dataset.said) announce(adopted.dataset.said);
  } catch {
    announce("The server could not be reached.");
  } finally {
    button?.removeAttribute("aria-busy");
    target.removeAttribute("aria-busy");
  }
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
  if (form.matches("[data-fragment]")) {
    event.preventDefault();
    replace(form, event.submitter);
    return;
  }
  // A second click must not do it twice.
  if (form.method === "post") {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
    setTimeout(() => delete form.dataset.sent, 4000);
  }
});

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
