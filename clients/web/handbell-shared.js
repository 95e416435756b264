/**
 * What a page and its service worker share: the record of this browser's session, the requests to
 * the server, and the subscription. It is loaded as a module by the page and by `importScripts` by
 * the worker, so it exports nothing and is found as `globalThis.handbellShared`.
 *
 * The record lies in IndexedDB, where page and worker both reach it: the session's id and secret,
 * sessions that the server could not be told of yet, and receipts that wait for a network. No mail
 * address is kept, and nothing of what notifications say.
 */
(() => {
  const DATABASE = "handbell";
  const STORE = "record";
  const LOCK = "handbell";
  const SUBSCRIBE_MILLISECONDS = 1500;
  const SUBSCRIBE_TIMES = 12;
  const REQUEST_MILLISECONDS = 20_000;
  const MOST_RECEIPTS = 100;
  const OVER = ["unauthorized", "session-unknown", "proof-required"];

  /** An error with a stable `code`: one of this client's, or the server's own. */
  class HandbellError extends Error {
    constructor(code, message, { status = 0, retryAfter = null, cause } = {}) {
      super(message, { cause });
      this.name = "HandbellError";
      this.code = code;
      this.status = status;
      this.retryAfter = retryAfter;
    }
  }

  // The record

  function finished(request) {
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  async function withStore(mode, work) {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    const database = await finished(opening);
    try {
      const transaction = database.transaction(STORE, mode);
      const done = new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onerror = transaction.onabort = () => reject(transaction.error);
      });
      const result = await work(transaction.objectStore(STORE));
      await done;
      return result;
    } finally {
      database.close();
    }
  }

  const EMPTY = { session: null, leaving: [], receipts: [], settings: null, key: null };

  async function read() {
    return { ...EMPTY, ...(await withStore("readonly", (store) => finished(store.get(STORE)))) };
  }

  /** Change the record in one transaction, and return it. */
  function update(change) {
    return withStore("readwrite", async (store) => {
      const record = { ...EMPTY, ...(await finished(store.get(STORE))) };
      const changed = { ...record, ...change(record) };
      await finished(store.put(changed, STORE));
      return changed;
    });
  }

  /** Do one thing after the other, over all tabs and the worker. */
  function inTurn(work) {
    return navigator.locks.request(LOCK, work);
  }

  // The server

  async function request(settings, method, path, { body, secret } = {}) {
    const headers = {};
    if (body !== undefined) headers["content-type"] = "application/json";
    if (secret) headers.authorization = `Bearer ${secret}`;
    let answer;
    try {
      answer = await fetch(`${settings.server}/v1/apps/${encodeURIComponent(settings.app)}/${path}`, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        signal: AbortSignal.timeout(REQUEST_MILLISECONDS),
      });
    } catch (cause) {
      throw new HandbellError("network", "The send server could not be reached.", { cause });
    }
    const told = await answer.json().catch(() => null);
    if (answer.ok && (answer.status === 204 || told !== null)) return told;
    const retryAfter = Number(answer.headers.get("retry-after")) || null;
    const { status } = answer;
    if (!answer.ok && typeof told?.code === "string")
      throw new HandbellError(told.code, told.detail ?? told.title, { status, retryAfter });
    throw new HandbellError("network", `Something else than the send server answered (${status}).`, {
      status,
      retryAfter,
    });
  }

  /** What the server is told of this browser; nothing that identifies the user. */
  function about(settings) {
    const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
    return {
      platform: "web",
      ...(settings.environment ? { environment: settings.environment } : {}),
      locale: navigator.language,
      time_zone: timeZone,
    };
  }

  /**
   * Register the subscription: for `identity`, or, without one, for the session's own user again.
   * A session that another one replaces is closed. Returns the session.
   */
  async function register(settings, subscription, identity) {
    const { session: former } = await read();
    const told = await request(settings, "POST", "sessions", {
      body: {
        ...about(settings),
        ...identity,
        subscription: subscription.toJSON(),
        ...madeWith(subscription),
      },
      secret: former?.secret,
    });
    const session = { id: told.id, status: told.status, secret: told.secret ?? former?.secret };
    const isOther = former !== null && former.id !== session.id;
    await update(({ leaving }) => ({ session, leaving: isOther ? [...leaving, former] : leaving }));
    await leave(settings);
    return session;
  }

  /** End the sessions that this browser has left; those of which the server can't be told stay. */
  async function leave(settings) {
    const { leaving } = await read();
    for (const session of leaving) {
      try {
        await request(settings, "DELETE", `sessions/${session.id}`, { secret: session.secret });
      } catch (problem) {
        if (!isOver(problem)) return false;
      }
      await update((record) => ({ leaving: record.leaving.filter((one) => one.id !== session.id) }));
    }
    return true;
  }

  /** Whether the server itself says that it knows no such session. */
  function isOver(problem) {
    return OVER.includes(problem.code);
  }

  /** Note that a notification was displayed or opened, and report what has been noted. */
  async function report(notificationId, event) {
    if (!notificationId) return;
    const receipt = { notification_id: notificationId, event, at: new Date().toISOString() };
    await update(({ receipts }) => ({ receipts: [...receipts, receipt].slice(-MOST_RECEIPTS) }));
    await inTurn(sendReceipts);
  }

  /** Report what waits; what cannot be reported now waits for the next time. */
  async function sendReceipts() {
    const { session, settings, receipts } = await read();
    if (!session || !settings || !receipts.length) return;
    try {
      const path = `sessions/${session.id}/receipts/list`;
      await request(settings, "POST", path, { body: receipts, secret: session.secret });
    } catch (problem) {
      if (problem.code === "network" || problem.status >= 500 || problem.status === 429) return;
    }
    const isSent = (one) => receipts.some((sent) => JSON.stringify(sent) === JSON.stringify(one));
    await update((record) => ({ receipts: record.receipts.filter((one) => !isSent(one)) }));
  }

  // The subscription

  const NOTHING_YET = Symbol("nothing yet");

  /**
   * Ask the push manager, and ask again while it does not answer: Firefox never answers what is
   * asked before its own push service is up, and others pass on the network's errors.
   */
  async function ask(work) {
    let last;
    for (let time = 0; time < SUBSCRIBE_TIMES; time += 1) {
      const late = new Promise((resolve) => {
        setTimeout(resolve, SUBSCRIBE_MILLISECONDS, NOTHING_YET);
      });
      try {
        const answer = await Promise.race([work(), late]);
        if (answer !== NOTHING_YET) return answer;
      } catch (problem) {
        if (problem.name !== "AbortError") throw problem;
        last = problem;
        await late;
      }
    }
    throw new HandbellError("push-service", "The browser's push service does not answer.", {
      cause: last,
    });
  }

  function bytes(text) {
    const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return Uint8Array.from(plain, (character) => character.charCodeAt(0));
  }

  function isFor(subscription, key) {
    const own = new Uint8Array(subscription.options.applicationServerKey ?? []);
    const wanted = bytes(key);
    return own.length === wanted.length && own.every((byte, place) => byte === wanted[place]);
  }

  /** The key of a subscription, where the browser tells it: the server refuses a wrong one. */
  function madeWith(subscription) {
    const key = subscription.options?.applicationServerKey;
    if (!key) return {};
    const plain = btoa(String.fromCharCode(...new Uint8Array(key)));
    const text = plain.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    return { application_server_key: text };
  }

  /** Return a subscription for this key, the `known` one if it is; one for another is given up. */
  async function subscribe(registration, key, known = null) {
    const manager = registration.pushManager;
    const former = known ?? (await ask(() => manager.getSubscription()));
    if (former && isFor(former, key)) return former;
    if (former) await former.unsubscribe();
    const options = { userVisibleOnly: true, applicationServerKey: bytes(key) };
    try {
      return await ask(() => manager.subscribe(options));
    } catch (problem) {
      if (problem.name !== "NotAllowedError") throw problem;
      throw new HandbellError("denied", "Notifications are not allowed.", { cause: problem });
    }
  }

  globalThis.handbellShared = {
    HandbellError,
    ask,
    inTurn,
    isOver,
    leave,
    read,
    register,
    report,
    request,
    sendReceipts,
    subscribe,
    update,
  };
})();
