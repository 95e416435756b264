// Dropping a key or a service account: the file goes into the form's own field, and the form is sent.

const KEY_ID = /AuthKey_([A-Z0-9]{10})(?![A-Za-z0-9])/;

// Dropped beside the field, a file must not take the place of the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());

/** Bring the forms to life, also those that took their place. */
function begin() {
  for (const form of document.querySelectorAll("[data-key-form]:not([data-alive])")) wake(form);
}

function wake(form) {
  form.dataset.alive = "";
  const zone = form.querySelector("[data-drop]");
  const input = form.querySelector("input[type=file]");
  const keyId = form.querySelector("[name=key_id]");
  const said = form.querySelector("[data-drop-said]");
  let depth = 0;

  function look() {
    const file = input.files[0];
    if (!file) {
      said.textContent = "";
      return false;
    }
    // Only a key of Apple's has its id in the file's name.
    if (!keyId) return true;
    const found = KEY_ID.exec(file.name);
    const isCertificate = /\.(p12|pfx|pem)$/i.test(file.name);
    if (found) said.textContent = `Key id ${found[1]}.`;
    else if (isCertificate) said.textContent = "A certificate.";
    else {
      said.textContent = "The name of this file does not say its key id. Give it below.";
      form.querySelector("details").open = true;
      keyId.focus();
    }
    return Boolean(found);
  }

  input.addEventListener("change", look);

  zone.addEventListener("dragenter", () => {
    depth += 1;
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => {
    depth -= 1;
    if (depth <= 0) zone.classList.remove("over");
  });
  zone.addEventListener("drop", (event) => {
    depth = 0;
    zone.classList.remove("over");
    if (!event.dataTransfer?.files.length) return;
    input.files = event.dataTransfer.files;
    if (look()) form.requestSubmit();
  });

  form.addEventListener("submit", () => {
    if (input.files.length) said.textContent = "Adding and checking it…";
  });
}

document.addEventListener("handbell:shown", begin);
begin();
