/** Which addresses of a notification a tap may open. */

const NEVER = new Set([
  "javascript:", "data:", "vbscript:", "blob:", "file:", "filesystem:", "about:", "view-source:",
]);

/** The address as the browser reads it, or null where a tap must not open it. */
export function safeUrl(text) {
  if (!text || !URL.canParse(text)) return null;
  const url = new URL(text);
  return NEVER.has(url.protocol) ? null : url;
}

/** What a card shows of an address: the host, with the scheme for an app's own link. */
export function urlLabel(url) {
  return url.protocol.startsWith("http") ? url.host : `${url.protocol}//${url.host}`;
}

/** Open in a new tab that knows nothing of this page. */
export function openUrl(url) {
  const anchor = document.createElement("a");
  anchor.href = url.href;
  anchor.target = "_blank";
  anchor.rel = "noopener noreferrer";
  anchor.click();
}
