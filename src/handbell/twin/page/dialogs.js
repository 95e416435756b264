/** The two questions the page asks: which phone to add, and whether to remove one. */

import { byId, el, write } from "./dom.js";

const GONE = { apns: "410 Unregistered", fcm: "404 UNREGISTERED", webpush: "410 Gone" };

/** Open the form for a new phone; `add(wishes)` is called until it succeeds or is cancelled. */
export function askForPhone(apps, add) {
  const dialog = byId("phone-dialog");
  const form = byId("phone-form");
  form.reset();
  showError(null);
  byId("phone-app-field").hidden = apps.length < 2;
  form.elements.app.replaceChildren(...apps.map(({ id, name }) => el("option", { value: id, text: `${name} (${id})` })));
  form.onchange = () => showPlatform(form);
  showPlatform(form);
  byId("phone-cancel").onclick = () => dialog.close();
  form.onsubmit = async (event) => {
    event.preventDefault();
    try {
      await add(readWishes(form));
      dialog.close();
    } catch (problem) {
      showError(problem.message);
    }
  };
  dialog.showModal();
}

/** What only one kind of phone has is asked for that kind alone. */
function showPlatform(form) {
  const platform = form.elements.platform.value;
  byId("phone-side-field").hidden = byId("phone-side-field").disabled = platform !== "ios";
  byId("phone-project-field").hidden = form.elements.project.disabled = platform !== "android";
  byId("phone-own-browser").hidden = platform !== "web";
}

function readWishes(form) {
  const filled = [...new FormData(form)].filter(([, value]) => value.trim());
  return Object.fromEntries(filled.map(([name, value]) => [name, value.trim()]));
}

function showError(text) {
  const place = byId("phone-form-error");
  place.hidden = !text;
  write(place, text ?? "");
}

/** Ask before a phone is removed; answers whether to do it. */
export function askToRemove(phone) {
  const dialog = byId("remove-dialog");
  write(
    byId("remove-dialog-text"),
    `${phone.app_name} is uninstalled from ${phone.name}. From then on its token answers ${GONE[phone.service]}.`,
  );
  dialog.returnValue = "keep";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "remove"), { once: true });
  });
}
