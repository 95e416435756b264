// The form of Compose while somebody types: the phone at once, bytes and people from the server.

import { announce, fragment } from "./console.js";

const form = document.getElementById("compose");
const card = document.getElementById("draft-card");
document.documentElement.classList.add("scripted");

const text = (name) => form.elements[name]?.value.trim() ?? "";

/** Whether a template makes the texts, which only the server can. */
const isMade = () => text("template") !== "";

function show(selector, said, within = card) {
  const element = within.querySelector(selector);
  element.textContent = said;
  element.hidden = !said;
}

// The phone

const LEVELS = { "time-sensitive": "Time sensitive", critical: "Critical" };

function draw(texts = { title: text("title"), subtitle: text("subtitle"), body: text("body") }) {
  show(".push-title", texts.title);
  show(".push-subtitle", texts.subtitle);
  show(".push-body", texts.body);
  show(".push-link span", text("url"));
  card.querySelector(".push-link").hidden = !text("url");
  card.querySelector(".push-bell").hidden = !text("sound");
  show(".push-level", LEVELS[text("interruption_level")] ?? "");
  card.dataset.level = text("interruption_level") || "active";
  const badge = document.getElementById("draft-badge");
  badge.textContent = text("badge");
  badge.hidden = !Number(text("badge"));
}

function picture() {
  const image = card.querySelector(".push-image");
  const address = text("image_url");
  const isShown = /^https:\/\/\S+\.\S+/.test(address);
  if (isShown && image.getAttribute("src") !== address) image.src = address;
  image.hidden = !isShown;
}
card.querySelector(".push-image").addEventListener("error", (event) => { event.target.hidden = true; });

// What the server says

let asking = null;
let latest = 0;

function list(id, lines) {
  const items = lines.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  });
  document.getElementById(id)?.replaceChildren(...items);
}

const number = new Intl.NumberFormat("en");

function tell(said) {
  const told = document.getElementById("size-told");
  if (said.limit) {
    told.textContent = `${number.format(said.size)} of ${number.format(said.limit)} bytes`;
    const meter = document.getElementById("size");
    meter.max = said.limit;
    meter.high = said.limit * 0.85;
    meter.value = said.size;
  }
  document.getElementById("payload").textContent = said.payload;
  if (isMade() || said.cuts.length) draw(said.shown);
  list("cuts", said.cuts);
  list("sizes", said.languages.slice(1).map((one) => `${one.language}: ${number.format(one.size)} bytes`));
  const reaches = document.getElementById("reaches");
  const sentence = said.reaches || (text("recipients") ? "Not everybody named is understood yet." : "Nobody is named yet.");
  if (reaches && reaches.textContent !== sentence) reaches.textContent = sentence;
  list("left-out", said.left_out);
  faults(said.faults);
}

// What the server is not asked about while somebody types: it stays until the form is sent again.
const UNASKED = new Set(["test_to", "send_at", "zone", "to"]);

function faults(found) {
  for (const old of form.querySelectorAll(".fault[id$=-fault]")) {
    const name = old.id.slice(0, -"-fault".length);
    if (found[name] || UNASKED.has(name)) continue;
    document.getElementById(name)?.removeAttribute("aria-invalid");
    old.remove();
  }
  for (const [name, sentence] of Object.entries(found)) {
    const input = document.getElementById(name);
    if (!input || !form.contains(input)) continue;
    let line = document.getElementById(`${name}-fault`);
    if (!line) {
      line = document.createElement("p");
      line.id = `${name}-fault`;
      line.className = "fault";
      input.closest(".field")?.append(line);
    }
    if (line.textContent !== sentence) line.textContent = sentence;
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", `${name}-fault ${name}-hint`);
  }
}

async function ask() {
  asking?.abort();
  asking = new AbortController();
  const mine = ++latest;
  const reach = document.getElementById("reach");
  reach?.setAttribute("aria-busy", "true");
  try {
    const answer = await fragment(form.dataset.preview, {
      method: "POST",
      body: new FormData(form),
      signal: asking.signal,
    });
    if (answer.ok && mine === latest) tell(await answer.json());
  } catch (error) {
    if (error.name !== "AbortError") announce("The server could not be reached.");
  } finally {
    if (mine === latest) reach?.removeAttribute("aria-busy");
  }
}

let timer = 0;
form.addEventListener("input", () => {
  if (!isMade()) draw();
  clearTimeout(timer);
  timer = setTimeout(() => { picture(); ask(); }, 300);
});

// Another template has other variables: the server knows them.

form.elements.template?.addEventListener("change", () => form.requestSubmit(form.querySelector('[value="edit"]')));

// The browser's own zone, unless somebody wrote another one.

const zone = form.elements.zone;
if (zone && (!zone.value || zone.value === "UTC")) {
  zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}
form.querySelector("[data-added]")?.focus();
if (matchMedia("(prefers-color-scheme: dark)").matches) document.getElementById("tone-dark").click();
picture();
