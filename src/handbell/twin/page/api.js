/** The twin's JSON API, and its live events. */

/** What the twin answered instead of doing it; the message is for people. */
export class Refusal extends Error {}

async function call(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  }).catch(() => {
    throw new Refusal("The twin cannot be reached. Is it still running?");
  });
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(answer.error ?? `The twin answered ${response.status}.`);
  return answer;
}

const phonePath = (id) => `/api/phones/${encodeURIComponent(id)}`;
const cardPath = (id, card) => `${phonePath(id)}/cards/${encodeURIComponent(card)}`;

export const api = {
  state: () => call("GET", "/api/state"),
  addPhone: (wishes) => call("POST", "/api/phones", wishes),
  changePhone: (id, changes) => call("PATCH", phonePath(id), changes),
  openApp: (id) => call("POST", `${phonePath(id)}/open`),
  setChannel: (id, channel, isOn) => call("PATCH", `${phonePath(id)}/channels/${encodeURIComponent(channel)}`, { is_on: isOn }),
  webPushKey: (app) => call("GET", `/api/web-push-key?app=${encodeURIComponent(app)}`),
  addBrowser: (wishes) => call("POST", "/api/browsers", wishes),
  makeServiceAccount: (wishes) => call("POST", "/api/service-accounts", wishes),
  removePhone: (id) => call("DELETE", phonePath(id)),
  openCard: (id, card) => call("POST", `${cardPath(id, card)}/open`),
  dismissCard: (id, card) => call("DELETE", cardPath(id, card)),
  addFault: (fault) => call("POST", "/api/faults", fault),
  removeFault: (id) => call("DELETE", `/api/faults/${encodeURIComponent(id)}`),
  removeAllFaults: () => call("DELETE", "/api/faults"),
};

const EVENTS = ["phone", "phone-removed", "request", "fault", "fault-removed"];
const RETRY_MILLISECONDS = 1000;

/**
 * Listen for as long as the page lives.
 *
 * After each (re)connection the whole state is read again, and events that came meanwhile are
 * applied on top of it: nothing that happened while the page was away is missed.
 */
export function listen({ onState, onEvent, onLink }) {
  let waiting = null;
  let isLost = false;
  const source = new EventSource("/api/events");
  const lose = () => {
    if (isLost) return;
    isLost = true;
    onLink("lost");
    source.close();
    setTimeout(() => listen({ onState, onEvent, onLink }), RETRY_MILLISECONDS);
  };
  source.onerror = lose;
  source.onopen = async () => {
    waiting = [];
    try {
      onState(await api.state());
    } catch {
      lose();
      return;
    }
    waiting.forEach(([kind, data]) => onEvent(kind, data));
    waiting = null;
    onLink("live");
  };
  for (const kind of EVENTS) {
    source.addEventListener(kind, (event) => {
      const data = JSON.parse(event.data);
      if (waiting) waiting.push([kind, data]);
      else onEvent(kind, data);
    });
  }
}
