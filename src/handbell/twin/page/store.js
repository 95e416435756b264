/** What the page knows, kept in step with the twin's events. */

const REQUESTS_KEPT = 200;

export class Store {
  #listeners = new Set();
  #isScheduled = false;

  constructor() {
    this.replace({});
  }

  /** Take a whole state, as after a (re)connection. */
  replace(state) {
    this.address = state.address ?? {};
    this.apps = state.apps ?? [];
    this.keys = state.keys ?? [];
    this.accounts = state.service_accounts ?? [];
    this.reasons = state.reasons ?? [];
    this.phones = new Map((state.phones ?? []).map((phone) => [phone.id, phone]));
    this.requests = state.requests ?? [];
    this.faults = new Map((state.faults ?? []).map((fault) => [fault.id, fault]));
    this.#changed();
  }

  /** Apply one live event. */
  apply(kind, data) {
    if (kind === "phone") this.#setPhone(data);
    else if (kind === "phone-removed") this.phones.delete(data.id);
    else if (kind === "request") this.#addRequest(data);
    else if (kind === "fault") this.faults.set(data.id, data);
    else if (kind === "fault-removed") this.faults.delete(data.id);
    this.#changed();
  }

  /** A phone may bring an app that was not known before. */
  #setPhone(phone) {
    this.phones.set(phone.id, phone);
    if (this.apps.some(({ id }) => id === phone.app)) return;
    this.apps = [...this.apps, { id: phone.app, name: phone.app_name }];
  }

  addAccount({ client_email, project_id: project }) {
    this.accounts = [...this.accounts, { client_email, project }];
    this.#changed();
  }

  #addRequest(request) {
    const others = this.requests.filter((known) => known.id !== request.id);
    this.requests = [request, ...others].slice(0, REQUESTS_KEPT);
  }

  /** Call `listener` once per frame in which something changed. */
  subscribe(listener) {
    this.#listeners.add(listener);
  }

  #changed() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    requestAnimationFrame(() => {
      this.#isScheduled = false;
      this.#listeners.forEach((listener) => listener(this));
    });
  }
}
