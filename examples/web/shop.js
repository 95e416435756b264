// A tiny shop's page: asks for notifications when its user wants them, and signs out.
import { Handbell } from "./handbell.js";

const handbell = new Handbell({
  server: "http://127.0.0.1:8710", // your send server
  app: "shop", // your app's id
  worker: "handbell-worker.js",
});
const form = document.getElementById("sign-in");
const signOut = document.getElementById("sign-out");

const WORDS = {
  active: "Notifications are on.",
  pending: "Open the link that was mailed to you.",
  install: "Add this page to the home screen first, and open it from there.",
  denied: "Notifications are blocked. Allow them in the browser's settings of this page.",
  dismissed: "Notifications stay off.",
};

function show(session, word = session?.status) {
  form.hidden = session !== null;
  signOut.hidden = session === null;
  document.getElementById("state").textContent = WORDS[word] ?? "";
}

async function attempt(work) {
  try {
    show(await work());
  } catch (problem) {
    show(null, problem.code);
    if (!(problem.code in WORDS)) document.getElementById("state").textContent = problem.message;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  // Nothing is awaited before enable(): browsers ask the user only right after a click.
  // A back end that signs tokens passes { identityToken } instead; see ../backend.
  attempt(() => handbell.enable({ mail: form.elements.mail.value }));
});

signOut.addEventListener("click", () => attempt(() => handbell.signOut().then(() => null)));

attempt(() => handbell.refresh());
