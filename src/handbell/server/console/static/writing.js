// What somebody writes while the answer to a form is on the way: it goes on in the form of the answer.

/** Return what stands in a form now, by field; of what is chosen, whether it is. */
export function written(form) {
  const fields = new Map();
  for (const one of form?.elements ?? []) {
    if (!one.name || one.type === "hidden" || one.tagName === "BUTTON") continue;
    const isChoice = one.type === "checkbox" || one.type === "radio";
    fields.set(isChoice ? `${one.name}=${one.value}` : one.name, { one, said: isChoice ? one.checked : one.value });
  }
  return fields;
}

const isChanged = (sent, name, said) => sent.has(name) && sent.get(name).said !== said;

/** Put into a form what was written after it was `sent`. */
export function carryOn(form, sent, late) {
  const fresh = written(form);
  const changed = [...late].filter(([name, { said }]) => fresh.has(name) && isChanged(sent, name, said));
  for (const [name, { said }] of changed) {
    const field = fresh.get(name).one;
    if (typeof said === "boolean") field.checked = said;
    else field.value = said;
  }
  if (changed.length) form.dispatchEvent(new Event("input"));
}

/** Return where somebody writes, if they went there, or wrote there, after the form was sent. */
export function placeOf(form, sent, pressed) {
  const field = document.activeElement;
  if (!form || !field?.id || field.form !== form || field.tagName === "BUTTON") return null;
  if (field === pressed && field.tagName !== "SELECT" && !isChanged(sent, field.name, field.value)) return null;
  return { id: field.id, from: field.selectionStart, to: field.selectionEnd, scroll: field.scrollTop };
}

/** Let them go on there: the next key lands where it was meant for. */
export function goOn(place) {
  const field = place && document.getElementById(place.id);
  if (!field) return false;
  field.focus({ preventScroll: true });
  if (Number.isInteger(place.from)) field.setSelectionRange(place.from, place.to);
  field.scrollTop = place.scroll;
  return true;
}

/** Put what was written in the forms of a page, but the one that was sent, into those of its successor. */
export function carryForms(old, fresh, sent) {
  const forms = [...fresh.querySelectorAll("form")];
  for (const form of old.querySelectorAll("form")) {
    const same = forms.find((one) => one.getAttribute("action") === form.getAttribute("action"));
    if (form !== sent && same) for (const one of form.elements) carry(one, same);
  }
}

function carry(one, form) {
  if (!one.name || one.type === "hidden" || one.tagName === "BUTTON") return;
  const isChoice = one.type === "checkbox" || one.type === "radio";
  const same = [...form.elements].find((other) => other.name === one.name && (!isChoice || other.value === one.value));
  if (!same || !isTouched(one, isChoice)) return;
  if (one.type === "file") same.files = one.files;
  else if (isChoice) same.checked = one.checked;
  else same.value = one.value;
  same.closest("details")?.setAttribute("open", "");
}

/** Whether somebody wrote into a form since it came. */
export const isWritten = (form) => [...written(form).values()].some(({ one }) =>
  isTouched(one, one.type === "checkbox" || one.type === "radio"));

function isTouched(one, isChoice) {
  if (isChoice) return one.checked !== one.defaultChecked;
  if (one.type === "file") return one.files.length > 0;
  if (one.tagName !== "SELECT") return one.value !== one.defaultValue;
  const begun = [...one.options].find((option) => option.defaultSelected) ?? one.options[0];
  return one.value !== begun?.value;
}
