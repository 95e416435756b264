/** The faults panel: what the twin shall do wrong, to whom and how often. */

import { byId, el, follow, icon, write } from "./dom.js";
import { showCount } from "./inspector.js";

const KINDS = {
  answer: { name: "Answer with a reason", does: "Refuses the push as its service does.", fields: ["reason", "status", "retry_after"] },
  "cut-answer": { name: "Cut an answer", does: "Begins an answer, and resets the stream in the middle of its body.", fields: ["reason", "status", "retry_after"] },
  slow: { name: "Answer slowly", does: "Handles the push, and answers late.", fields: ["seconds"] },
  silence: { name: "Never answer", does: "Takes the request and stays silent.", fields: ["delivers"] },
  reset: { name: "Reset the stream", does: "Ends the stream with RST_STREAM INTERNAL_ERROR.", fields: ["delivers"] },
  "refuse-stream": { name: "Refuse the stream", does: "Ends it with REFUSED_STREAM: nothing was processed.", fields: [] },
  "stream-limit": { name: "Limit the streams", does: "Announces another limit of concurrent streams, and answers.", fields: ["limit"] },
  goaway: { name: "Say GOAWAY", does: "Announces the end of the connection and closes it.", fields: ["reason", "graceful"] },
  cut: { name: "Cut the connection", does: "Drops the TCP connection.", fields: ["delivers"] },
};
const WHOLE = ["count", "after", "status", "retry_after", "limit"];
const USUAL_REASON = "Unregistered";
const SIDES = {
  production: "The production side",
  development: "The development side",
  fcm: "FCM",
  oauth: "FCM’s token endpoint",
  webpush: "Web Push",
};
const SERVICE_OF_SIDE = { production: "apns", development: "apns", fcm: "fcm", oauth: "oauth", webpush: "webpush" };
const SERVICES = { apns: "APNs", fcm: "FCM", oauth: "FCM’s token endpoint" };

export class FaultsPanel {
  constructor(store, { add, remove, removeAll }) {
    this.store = store;
    this.actions = { add, remove, removeAll };
    this.root = byId("panel-faults");
    this.root.append(this.#form(), this.#active());
    this.#showFields();
    store.subscribe(() => this.update());
  }

  #form() {
    this.kind = el("select", { name: "kind" }, ...Object.entries(KINDS).map(([value, { name }]) => el("option", { value, text: name })));
    this.does = el("small", { id: "fault-does" });
    this.kind.setAttribute("aria-describedby", "fault-does");
    this.target = el("select", { name: "target" });
    this.reason = el("select", { name: "reason" });
    this.status = number("status", { min: "200", max: "599", placeholder: "as the service’s table" });
    this.error = el("p", { class: "form-error", role: "alert", hidden: true });
    this.form = el(
      "form",
      { class: "form fault-form", "aria-label": "New fault" },
      el("div", { class: "field" }, el("label", {}, el("span", { text: "The twin shall" }), this.kind), this.does),
      labelled("Reason", this.reason, "reason"),
      el(
        "div",
        { class: "field-row" },
        labelled("Status", this.status, "status"),
        labelled("Retry-After, seconds", number("retry_after", { min: "0", max: "86400", placeholder: "none" }), "retry_after"),
        labelled("Seconds", number("seconds", { min: "0", max: "3600", step: "any", value: "2" }), "seconds"),
        labelled("Streams at once", number("limit", { min: "0", value: "1" }), "limit"),
      ),
      checkbox("graceful", "Finish the streams already begun", true),
      checkbox("delivers", "The phone gets it all the same: only the answer is lost", false),
      labelled("For", this.target),
      el(
        "div",
        { class: "field-row" },
        labelled("How many requests", number("count", { min: "1", max: "1000000", value: "1" })),
        labelled("After letting pass", number("after", { min: "0", max: "1000000", value: "0" })),
      ),
      this.error,
      el("div", { class: "form-end" }, el("button", { type: "submit", class: "button primary", text: "Set the fault" })),
    );
    this.kind.addEventListener("change", () => this.#showFields());
    this.target.addEventListener("change", () => this.#showFields());
    this.form.addEventListener("submit", (event) => this.#submit(event));
    return this.form;
  }

  #active() {
    this.list = el("ul", { class: "faults", "aria-label": "Active faults" });
    this.none = el("p", { class: "hint", text: "No fault is set: the twin behaves like the services themselves." });
    this.clear = el("button", { type: "button", class: "button small", text: "Remove all", hidden: true });
    this.clear.addEventListener("click", () => this.actions.removeAll());
    return el("section", { class: "active-faults" }, el("div", { class: "section-head" }, el("h2", { text: "Active faults" }), this.clear), this.none, this.list);
  }

  update() {
    const faults = [...this.store.faults.values()];
    follow(this.list, faults, (fault) => fault.id, (fault) => new FaultRow(fault, this));
    this.none.hidden = faults.length > 0;
    this.clear.hidden = faults.length < 2;
    showCount(byId("count-faults"), faults.length);
    this.#offer(this.target, this.#targets());
    const isFirst = this.reason.length === 0;
    this.#offer(this.reason, this.#reasons());
    if (isFirst) this.reason.value = USUAL_REASON;
  }

  targetName(fault) {
    const phone = [...this.store.phones.values()].find(({ token }) => token === fault.token);
    if (phone) return phone.name;
    if (fault.token) return `token ${fault.token.slice(0, 8)}…`;
    return fault.side ? SIDES[fault.side] : "any push";
  }

  #targets() {
    const phones = [...this.store.phones.values()].map(({ token, name }) => [`token ${token}`, name]);
    return [["", "Any push"], ...phones, ...Object.entries(SIDES).map(([side, name]) => [`side ${side}`, name])];
  }

  #reasons() {
    const service = this.#service();
    const offered = this.store.reasons.filter((reason) => !service || reason.service === service);
    const rows = offered.map(({ service, name, status, meaning }) => [name, `${status} ${name}: ${meaning}`, SERVICES[service]]);
    if (rows.length === 0) return [["", "None: the status alone"]];
    return this.kind.value === "goaway" ? [["", "No reason"], ...rows] : rows;
  }

  /** The service of the chosen target: a reason of another one would mean nothing to its client. */
  #service() {
    const [what, which] = this.target.value.split(" ");
    if (what === "side") return SERVICE_OF_SIDE[which];
    return what ? [...this.store.phones.values()].find(({ token }) => token === which)?.service : null;
  }

  #offer(select, offers) {
    const wanted = JSON.stringify(offers);
    if (select.dataset.offered === wanted) return;
    select.dataset.offered = wanted;
    const chosen = select.value;
    select.replaceChildren(...grouped(offers));
    if (offers.some(([value]) => value === chosen)) select.value = chosen;
  }

  #showFields() {
    const { fields, does } = KINDS[this.kind.value];
    write(this.does, does);
    for (const field of this.form.querySelectorAll("[data-field]")) {
      const isOff = !fields.includes(field.dataset.field);
      field.hidden = isOff;
      field.querySelector("input, select").disabled = isOff;
    }
    this.#offer(this.reason, this.#reasons());
  }

  async #submit(event) {
    event.preventDefault();
    this.error.hidden = true;
    try {
      await this.actions.add(readFault(this.form));
    } catch (problem) {
      this.error.hidden = false;
      write(this.error, problem.message);
    }
  }
}

/** The offers as options, those of a group below its name. */
function grouped(offers) {
  const groups = new Map();
  const nodes = [];
  for (const [value, text, group] of offers) {
    const option = el("option", { value, text });
    if (!group) {
      nodes.push(option);
      continue;
    }
    if (!groups.has(group)) {
      groups.set(group, el("optgroup", { label: group }));
      nodes.push(groups.get(group));
    }
    groups.get(group).append(option);
  }
  return nodes;
}

/** What the form asks for, as the twin's API takes it; empty fields are left out. */
function readFault(form) {
  const fault = {};
  for (const [name, value] of new FormData(form)) {
    if (value === "" || name === "target") continue;
    if (WHOLE.includes(name) || name === "seconds") fault[name] = Number(value);
    else fault[name] = value;
  }
  for (const box of form.querySelectorAll("input[type=checkbox]:enabled")) fault[box.name] = box.checked;
  const [what, which] = form.elements.target.value.split(" ");
  if (what) fault[what] = which;
  return fault;
}

class FaultRow {
  constructor(fault, panel) {
    this.panel = panel;
    this.what = el("strong", { class: "fault-what" });
    this.target = el("span", { class: "fault-target" });
    this.left = el("span", { class: "fault-left" });
    const remove = el("button", { type: "button", class: "tool small", "aria-label": `Remove the fault ${fault.kind}`, title: "Remove this fault" }, icon("close"));
    remove.addEventListener("click", () => panel.actions.remove(fault));
    this.root = el("li", { class: "fault-row", "data-fault": fault.id }, el("div", { class: "fault-text" }, this.what, this.target), this.left, remove);
  }

  update(fault) {
    write(this.what, describe(fault));
    write(this.target, `for ${this.panel.targetName(fault)}${fault.after ? `, after ${fault.after} more` : ""}`);
    write(this.left, `${fault.left} left`);
  }
}

function describe({ kind, status, reason, seconds, limit }) {
  if (kind === "answer") return [status, reason].filter(Boolean).join(" ");
  if (kind === "cut-answer") return `Cut ${[status, reason].filter(Boolean).join(" ")}`;
  if (kind === "slow") return `Answer after ${seconds} s`;
  if (kind === "stream-limit") return `At most ${limit} streams`;
  if (kind === "goaway" && reason) return `Say GOAWAY, ${reason}`;
  return KINDS[kind]?.name ?? kind;
}

function labelled(text, control, field = null) {
  return el("label", { class: "field", "data-field": field }, el("span", { text }), control);
}

function number(name, limits) {
  return el("input", { type: "number", name, step: "1", inputmode: "decimal", ...limits });
}

function checkbox(name, text, checked) {
  return el("label", { class: "check", "data-field": name }, el("input", { type: "checkbox", name, checked }), text);
}
