// What is asked for again while somebody looks: an element with data-live, an id and data-every.
//
// The answer holds the element anew; without data-live in it, it is final and nobody asks again.
// data-also names further elements of the page that the answer holds anew.

import { announce, fragment, localTimes, parsed } from "./console.js";

const tags = new Map();

/** Where the focus is within an element, as a path that survives the element's replacement. */
function focusIn(element) {
  const focused = document.activeElement;
  if (!element.contains(focused)) return null;
  return [...element.querySelectorAll("a, button, input, summary, [tabindex]")].indexOf(focused);
}

function put(current, fresh) {
  const place = focusIn(current);
  const open = new Set([...current.querySelectorAll("details[open]")].map((one) => one.id));
  document.adoptNode(fresh);
  for (const one of fresh.querySelectorAll("details")) if (open.has(one.id)) one.open = true;
  if (fresh.dataset.newest && fresh.dataset.newest !== current.dataset.newest) {
    fresh.querySelector(".push")?.classList.add("new");
  }
  current.replaceWith(fresh);
  localTimes(fresh);
  if (place !== null && place >= 0) {
    fresh.querySelectorAll("a, button, input, summary, [tabindex]")[place]?.focus();
  }
  if (fresh.dataset.said && fresh.dataset.said !== current.dataset.said) {
    announce(fresh.dataset.said);
  }
}

async function look(id) {
  const current = document.getElementById(id);
  if (!current?.dataset.live) return null;
  const url = current.dataset.live;
  const known = tags.get(url);
  const answer = await fragment(url, { headers: known ? { "If-None-Match": known } : {} });
  if (answer.status === 200) {
    const page = parsed(await answer.text());
    const fresh = page.getElementById(id);
    const now = document.getElementById(id);
    // Somebody may have pressed a button or chosen another device meanwhile: the next look is right.
    if (fresh && now === current && current.dataset.live === url) {
      tags.set(url, answer.headers.get("ETag"));
      for (const other of (current.dataset.also ?? "").split(" ")) {
        const [there, here] = [page.getElementById(other), document.getElementById(other)];
        if (other && there && here) put(here, there);
      }
      put(current, fresh);
      document.dispatchEvent(new Event("handbell:shown"));
    }
  }
  const left = document.getElementById(id);
  return left?.dataset.live ? Number(left.dataset.every) || 1000 : null;
}

const followed = new Set();

async function follow(id) {
  if (followed.has(id)) return;
  followed.add(id);
  let wait = Number(document.getElementById(id).dataset.every) || 1000;
  while (wait !== null) {
    await new Promise((resolve) => { setTimeout(resolve, wait); });
    if (document.visibilityState === "hidden") continue;
    try {
      wait = await look(id);
    } catch {
      wait = 5000;
    }
  }
  followed.delete(id);
}

function followAll() {
  for (const element of document.querySelectorAll("[data-live][id]")) follow(element.id);
}

document.addEventListener("handbell:shown", followAll);
followAll();
