// Whether the server answers, and whether the operator is still signed in: said above the page.
//
// What somebody wrote stays where it is; who was signed out signs in beside it.

const body = document.body;
const bar = document.getElementById("away");
const EVERY_MILLISECONDS = 10_000;

let missingSince = null;
let asking = null;

/** Put a sentence above the page, with a button where there is something to press; "" takes it away. */
function tell(sentence, label = "", press = null) {
  if (!bar || bar.dataset.said === sentence) return;
  bar.dataset.said = sentence;
  bar.hidden = !sentence;
  const line = document.createElement("p");
  line.textContent = sentence;
  bar.replaceChildren(line);
  if (!press) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button small";
  button.textContent = label;
  button.addEventListener("click", press);
  bar.append(button);
}

/** Note that the server answered, or did not. */
export function answered(isThere) {
  if (isThere) {
    if (missingSince !== null) tell("");
    missingSince = null;
    return;
  }
  missingSince ??= new Date();
  const at = missingSince.toLocaleTimeString(undefined, { hour: "numeric", minute: "2-digit", timeZoneName: "short" });
  tell(`The server does not answer since ${at}. What stands here is from before; what you write is kept.`);
}

/** Put the token of the sign-in as it is now into every form. */
function adopt(token) {
  for (const field of document.querySelectorAll('input[name="token"]')) field.value = token;
  tell("");
  return token;
}

/** Return the form token of whoever's page this is, or null where they are not signed in any more. */
export async function signedIn() {
  const address = body.dataset.signIn;
  if (!address) return "";
  let answer;
  try {
    answer = await fetch(address, { headers: { "X-Fragment": "1" }, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    answered(false);
    throw error;
  }
  answered(true);
  if (!answer.ok) return "";
  const said = await answer.json();
  if (said.operator === body.dataset.operator) return adopt(said.token);
  const other = said.operator ? `${said.operator} is signed in here now.` : "Your sign-in has ended.";
  tell(`${other} What you wrote is kept.`, "Sign in", signInBeside);
  return null;
}

/** Ask for the password beside the page; resolves with the new token, or null when it is closed. */
export function signInBeside() {
  asking ??= ask().finally(() => { asking = null; });
  return asking;
}

function ask() {
  const dialog = document.createElement("dialog");
  dialog.className = "dialog";
  dialog.setAttribute("aria-labelledby", "sign-in-title");
  dialog.innerHTML = `<h2 id="sign-in-title">Sign in again</h2>
    <form class="stack" method="post" data-plain>
      <p>Your sign-in has ended. What you wrote stays as it is.</p>
      <div class="field"><label for="beside-mail">Mail address</label><input id="beside-mail" name="mail" type="email" autocomplete="username" readonly></div>
      <div class="field"><label for="beside-password">Password</label><input id="beside-password" name="password" type="password" autocomplete="current-password" required></div>
      <p class="fault" role="alert" hidden></p>
      <div class="form-end"><button type="button" class="button" data-later>Later</button><button class="button primary">Sign in</button></div>
    </form>`;
  dialog.querySelector("[name=mail]").value = body.dataset.operator;
  body.append(dialog);
  dialog.showModal();
  dialog.querySelector("[name=password]").focus();
  return new Promise((resolve) => {
    let token = null;
    dialog.querySelector("[data-later]").addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(token);
    });
    dialog.querySelector("form").addEventListener("submit", async (event) => {
      event.preventDefault();
      const fault = await tryPassword(new FormData(event.target));
      if (fault.token) {
        token = adopt(fault.token);
        dialog.close();
        return;
      }
      const line = dialog.querySelector(".fault");
      line.textContent = fault.said;
      line.hidden = false;
      dialog.querySelector("[name=password]").select();
    });
  });
}

async function tryPassword(fields) {
  try {
    const answer = await fetch(body.dataset.signIn, {
      method: "POST",
      headers: { "X-Fragment": "1" },
      body: fields,
      credentials: "same-origin",
    });
    if (answer.ok) return await answer.json();
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const said = page.querySelector("[role=alert] p")?.textContent.trim();
    return { said: said || "That did not work. Try it once more." };
  } catch {
    answered(false);
    return { said: "The server does not answer." };
  }
}

if (body.dataset.signIn) {
  setInterval(() => {
    if (document.visibilityState === "visible") signedIn().catch(() => {});
  }, EVERY_MILLISECONDS);
}
