/**
 * Handbell's service worker: shows notifications, opens what they lead to, reports receipts, and
 * renews a subscription that the browser has given up.
 *
 * Serve it from the origin of your pages. A worker of your own takes it in with
 * `importScripts("/handbell-worker.js")`; `handbell-shared.js` lies beside it.
 */
importScripts(new URL("handbell-shared.js", self.location.href).pathname);

(() => {
  const { inTurn, isOver, read, register, report, request, subscribe, update } = globalThis.handbellShared;

  self.addEventListener("push", (event) => {
    const message = messageOf(event);
    if (message) event.waitUntil(show(message));
  });

  self.addEventListener("notificationclick", (event) => {
    const { handbell } = event.notification.data ?? {};
    if (!handbell) return;
    event.notification.close();
    const address = handbell.actions[event.action] ?? handbell.navigate;
    event.waitUntil(Promise.all([open(address), report(handbell.id, "opened").catch(ignore)]));
  });

  self.addEventListener("pushsubscriptionchange", (event) => {
    event.waitUntil(inTurn(() => renew(event.newSubscription)));
  });

  /** What was sent, in the form of a declarative message; null for what is not Handbell's. */
  function messageOf(event) {
    try {
      const message = event.data?.json();
      return typeof message?.notification?.title === "string" ? message : null;
    } catch {
      return null;
    }
  }

  async function show({ notification, app_badge: badge }) {
    const { title, navigate, actions = [], data = {}, ...options } = notification;
    await self.registration.showNotification(title, {
      ...options,
      actions: actions.map(({ action, title: label, icon }) => ({ action, title: label, icon })),
      data: {
        ...data,
        handbell: {
          id: data.handbell,
          navigate: navigate ?? data.url,
          actions: Object.fromEntries(actions.map((one) => [one.action, one.navigate])),
        },
      },
    });
    await Promise.all([
      report(data.handbell, "displayed").catch(ignore),
      showBadge(badge).catch(ignore),
    ]);
  }

  async function showBadge(badge) {
    if (badge === undefined || badge === "" || !navigator.setAppBadge) return;
    if (Number(badge)) await navigator.setAppBadge(Number(badge));
    else await navigator.clearAppBadge();
  }

  /** Bring a tab with this address to the front, or open one. */
  async function open(address) {
    const url = new URL(address ?? "/", self.location.origin);
    if (!["http:", "https:"].includes(url.protocol)) return;
    const tabs = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
    const tab = tabs.find((one) => one.url === url.href);
    if (tab) await tab.focus();
    else await self.clients.openWindow(url.href);
  }

  /** Register the new subscription; the page does it at its next start where this fails. */
  async function renew(given) {
    const { session, settings, key } = await read();
    if (!session || !settings || !key) return;
    try {
      const wanted = await currentKey(settings, key);
      const subscription = await subscribe(self.registration, wanted, given);
      await register(settings, subscription, {});
    } catch (problem) {
      if (isOver(problem)) await update(() => ({ session: null }));
    }
  }

  /** The app's key may have changed since the page was here; the browser renews with the old. */
  async function currentKey(settings, known) {
    const told = await request(settings, "GET", "web-push").catch(() => null);
    if (told) await update(() => ({ key: told.public_key }));
    return told?.public_key ?? known;
  }

  function ignore() {}
})();
