/** JSON for reading: indented and coloured, with every number and text exactly as it was sent. */

import { el } from "./dom.js";

const TOKEN = /"(?:[^"\\]|\\.)*"|[-+.\w]+|[{}[\],:]/gs;
const DEEPEST_INDENT = 24;

/** A <pre> with the payload; what isn't JSON is shown as it is, with a word about it. */
export function jsonView(text) {
  if (!isJson(text)) {
    return el("div", {}, el("p", { class: "hint", text: "This is not valid JSON." }), el("pre", { class: "code", text }));
  }
  const pieces = printed(text.match(TOKEN)).map(([kind, piece]) =>
    kind ? el("span", { class: `json-${kind}`, text: piece }) : piece);
  return el("pre", { class: "code", tabindex: "0" }, ...pieces);
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function printed(tokens) {
  const pieces = [];
  let depth = 0;
  const newline = () => pieces.push(["", `\n${"  ".repeat(Math.min(depth, DEEPEST_INDENT))}`]);
  tokens.forEach((token, index) => {
    const next = tokens[index + 1];
    if (token === "{" || token === "[") {
      pieces.push(["", token]);
      depth += 1;
      if (next !== "}" && next !== "]") newline();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      if (tokens[index - 1] !== "{" && tokens[index - 1] !== "[") newline();
      pieces.push(["", token]);
    } else if (token === ",") {
      pieces.push(["", ","]);
      newline();
    } else if (token === ":") {
      pieces.push(["", ": "]);
    } else {
      pieces.push([kindOf(token, next), token]);
    }
  });
  return pieces;
}

function kindOf(token, next) {
  if (token.startsWith('"')) return next === ":" ? "key" : "text";
  return /^[-\d]/.test(token) ? "number" : "word";
}
