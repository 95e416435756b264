/**
 * Handbell in a web page: subscribes this browser to notifications, keeps the server up to date,
 * and signs out. The types are in handbell.d.ts, the way to use it in README.md.
 */
import "./handbell-shared.js";

const shared = globalThis.handbellShared;

export const { HandbellError } = shared;

export class Handbell {
  #settings;
  #worker;
  #scope;
  /** Counts sign-ins and sign-outs: who began under another number has been overtaken. */
  #turn = 0;

  constructor({ server, app, worker = "/handbell-worker.js", scope }) {
    const address = new URL(server, document.baseURI);
    this.#settings = { server: address.href.replace(/\/+$/, ""), app };
    this.#worker = worker;
    this.#scope = scope;
  }

  get support() {
    const hasAll = ["serviceWorker", "locks"].every((name) => name in navigator);
    if (hasAll && "PushManager" in window && "Notification" in window) return "ready";
    const isTouch = /iPhone|iPad/.test(navigator.userAgent) || navigator.maxTouchPoints > 1;
    return isTouch && "standalone" in navigator && !navigator.standalone ? "install" : "none";
  }

  get permission() {
    return this.support === "ready" ? Notification.permission : "denied";
  }

  async session() {
    const { session } = await shared.read();
    return session && { id: session.id, status: session.status };
  }

  async enable(identity) {
    this.#demandSupport();
    // Asked for before anything else: browsers allow it only right after a click.
    const asked = Notification.permission === "default" ? askPermission() : Notification.permission;
    if ((await asked) !== "granted")
      throw new HandbellError(
        Notification.permission === "denied" ? "denied" : "dismissed",
        "The user has not allowed notifications.",
      );
    return this.signIn(identity);
  }

  async signIn(identity) {
    this.#demandSupport();
    if (Notification.permission !== "granted")
      throw new HandbellError("denied", "Notifications are not allowed yet: call enable() first.");
    const turn = (this.#turn += 1);
    return shared.inTurn(async () => {
      const subscription = await this.#subscription();
      const proof = await proofOf(identity);
      this.#demandTurn(turn);
      const session = await shared.register(this.#settings, subscription, proof);
      this.#demandTurn(turn);
      return { id: session.id, status: session.status };
    });
  }

  async refresh() {
    if (this.support !== "ready") return null;
    const turn = this.#turn;
    return shared.inTurn(async () => {
      await shared.leave(this.#settings);
      await shared.sendReceipts();
      const { session } = await shared.read();
      if (!session || turn !== this.#turn) return null;
      if (Notification.permission !== "granted") {
        // Nothing can be shown any more: the server need not go on sending.
        await this.#depart();
        return null;
      }
      return this.#renew();
    });
  }

  async signOut() {
    this.#turn += 1;
    if (this.support !== "ready") return "closed";
    return shared.inTurn(async () => {
      const isClosed = await this.#depart();
      const registration = await navigator.serviceWorker.getRegistration(this.#scope);
      const subscription =
        registration && (await shared.ask(() => registration.pushManager.getSubscription()));
      // Whatever the server still sends, this browser does not get it.
      await subscription?.unsubscribe();
      return isClosed ? "closed" : "deferred";
    });
  }

  async #renew() {
    try {
      const renewed = await shared.register(this.#settings, await this.#subscription(), {});
      return { id: renewed.id, status: renewed.status };
    } catch (problem) {
      if (!shared.isOver(problem)) throw problem;
      await shared.update(() => ({ session: null }));
      return null;
    }
  }

  /** Give up the session, and tell the server; return whether it could be told. */
  async #depart() {
    await shared.update(({ session, leaving }) => ({
      session: null,
      receipts: [],
      leaving: session ? [...leaving, session] : leaving,
    }));
    return shared.leave(this.#settings);
  }

  async #subscription() {
    const told = await shared.request(this.#settings, "GET", "web-push");
    this.#settings = { ...this.#settings, environment: told.environment };
    await navigator.serviceWorker.register(this.#worker, this.#scope ? { scope: this.#scope } : {});
    const registration = await navigator.serviceWorker.ready;
    await shared.update(() => ({ settings: this.#settings, key: told.public_key }));
    return shared.subscribe(registration, told.public_key);
  }

  #demandSupport() {
    const { support } = this;
    if (support === "install")
      throw new HandbellError("install", "Add this page to the home screen, and open it from there.");
    if (support === "none")
      throw new HandbellError("unsupported", "This browser has no push notifications here.");
  }

  #demandTurn(turn) {
    if (turn !== this.#turn)
      throw new HandbellError("overtaken", "Another sign-in or sign-out came in between.");
  }
}

function askPermission() {
  if (navigator.userActivation?.isActive === false)
    throw new HandbellError("gesture", "Call enable() when the user has clicked on something.");
  return Notification.requestPermission();
}

/** What proves who it is, in the server's words; a function is asked for it at the last moment. */
async function proofOf(identity) {
  const { mail, identityToken } = typeof identity === "function" ? await identity() : identity;
  return mail === undefined ? { identity_token: identityToken } : { mail };
}
