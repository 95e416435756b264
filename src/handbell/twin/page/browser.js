/** Makes the browser that shows this page one of the phones, if it was led to the twin. */

import { api } from "./api.js";
import { byId, el, write } from "./dom.js";

const WORKER = "/static/browser-worker.js";
const ASKED_MILLISECONDS = 1500;
const ASKED_TIMES = 8;

const state = await api.state();
const form = byId("subscribe");
write(byId("socket"), state.address.webpush_socket_url);
byId("app-field").hidden = state.apps.length < 2;
form.elements.app.replaceChildren(...state.apps.map(({ id, name }) => el("option", { value: id, text: name })));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  // Asked for at once: browsers ask the user only right after a click.
  const asked = Notification.requestPermission();
  tell("Subscribing…");
  try {
    tell(await subscribe(await asked));
  } catch (problem) {
    tell(problem.message);
  }
});

function tell(text) {
  write(byId("outcome"), text);
}

async function subscribe(permission) {
  if (permission !== "granted") return "The browser does not allow notifications of this page.";
  const { name, mail, app } = Object.fromEntries(new FormData(form));
  const { public_key: key } = await api.webPushKey(app);
  await navigator.serviceWorker.register(WORKER);
  const { pushManager } = await navigator.serviceWorker.ready;
  const subscription = await subscribed(pushManager, key);
  if (!subscription.endpoint.startsWith(`${state.address.webpush_url}/`)) {
    await subscription.unsubscribe();
    return "This browser uses the push service of its maker, and not the twin’s: see step 1.";
  }
  const phone = await api.addBrowser({ name, mail, app, subscription: subscription.toJSON() });
  return `Done: ${phone.name} is one of the phones. Send a notification to ${phone.mail}.`;
}

/** Firefox never answers what is asked before its push service is connected: ask again. */
async function subscribed(pushManager, key) {
  for (let time = 0; time < ASKED_TIMES; time += 1) {
    const late = new Promise((resolve) => { setTimeout(resolve, ASKED_MILLISECONDS); });
    const options = { userVisibleOnly: true, applicationServerKey: key };
    const subscription = await Promise.race([renewed(pushManager, options), late]);
    if (subscription) return subscription;
  }
  throw new Error("The browser’s push service does not answer. Is it led to the twin that runs now?");
}

/** A subscription for another app is given up. */
async function renewed(pushManager, options) {
  try {
    return await pushManager.subscribe(options);
  } catch (problem) {
    if (problem.name !== "InvalidStateError") throw problem;
    await (await pushManager.getSubscription()).unsubscribe();
    return pushManager.subscribe(options);
  }
}
