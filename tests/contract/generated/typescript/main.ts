// Sends a text to a person, a list, and lines to a running server, with the generated types alone.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[]; exit(code: number): never };

type SendRequest = components["schemas"]["SendRequest"];

const [server = "", app = "", key = "", mail = ""] = process.argv.slice(2);
const client = createClient<paths>({
  baseUrl: server,
  headers: { Authorization: `Bearer ${key}` },
});
const path = { app };

function text(title: string): SendRequest {
  return { notification: { title, body: "From TypeScript" }, recipients: mail };
}

function check(name: string, isRight: boolean, found: unknown): void {
  if (!isRight) {
    console.error(name, JSON.stringify(found));
    process.exit(1);
  }
  console.log(name);
}

const one = await client.POST("/v1/apps/{app}/notifications", {
  params: { path, header: { Prefer: "wait=10" } },
  body: text("one"),
});
check("one", one.data?.success === true, one.error ?? one.data);

const list = await client.POST("/v1/apps/{app}/notifications/list", {
  params: { path },
  body: [
    text("two"),
    { notification: { title: "three" }, recipients: { mails: [mail] } },
    { notification: { title: "nobody" }, recipients: "not an address" },
  ],
});
const answers = (list.data ?? []).map((answer) => answer.id ?? answer.error?.code);
check("list", answers.length === 3 && answers[2] === "recipients-invalid", list.error ?? list.data);

const lines = await client.POST("/v1/apps/{app}/notifications/lines", {
  params: { path },
  body: [text("four"), text("five")].map((send) => `${JSON.stringify(send)}\n`).join(""),
  bodySerializer: (body) => body,
  headers: { "Content-Type": "application/x-ndjson" },
  parseAs: "text",
});
const last = (lines.data ?? "").trim().split("\n").at(-1) ?? "";
check("lines", last === '{"accepted":2,"refused":0}', lines.error ?? lines.data);

const found = await client.GET("/v1/apps/{app}/notifications", { params: { path } });
const titles = (found.data?.data ?? []).map((notification) => notification.title).sort();
check("found", titles.join(" ") === "five four one three two", found.error ?? titles);
