/** Shows what this browser gets from the twin's push service, and tells the twin's page of it. */

async function tell(path, content) {
  const { endpoint } = await self.registration.pushManager.getSubscription();
  await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ endpoint, ...content }),
  });
}

async function show(message) {
  const { title, navigate, tag, ...options } = message.notification;
  // What replaces is known by its tag; what has none gets one, for the card on the page.
  const card = tag ?? crypto.randomUUID();
  const data = { card, navigate: navigate ?? options.data?.url };
  await self.registration.showNotification(title, { ...options, tag: card, data });
  const notification = { ...message.notification, tag: card };
  await tell("/api/browsers/shown", { message: { ...message, notification } });
}

async function open({ card, navigate }) {
  await tell("/api/browsers/opened", { card });
  const address = new URL(navigate ?? "/", self.location.origin);
  if (/^https?:$/.test(address.protocol)) await self.clients.openWindow(address.href);
}

self.addEventListener("push", (event) => {
  const message = event.data?.json();
  if (message?.notification?.title) event.waitUntil(show(message));
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data));
});
