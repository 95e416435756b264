// Node's fetch and its http module: what they send by themselves, and trailers.
import http from "node:http";

const [url, app, key] = process.argv.slice(2);
const sends = `${url}/v1/apps/${app}/notifications`;
const send = (title) =>
  JSON.stringify({ notification: { title }, recipients: "a@example.com" });
const headers = (kind) => ({ "Content-Type": kind, Authorization: `Bearer ${key}` });

function tell(what, status, body) {
  console.log([what, status, "HTTP_1_1", body.trim().replaceAll("\n", " ")].join("\t"));
}

async function post(what, kind, body, more = {}) {
  const answer = await fetch(sends, { method: "POST", headers: headers(kind), body, ...more });
  tell(what, answer.status, await answer.text());
}

async function* pieces(...all) {
  for (const one of all) {
    yield new TextEncoder().encode(one);
    await new Promise((done) => setTimeout(done, 100));
  }
}

function raw(what, more, write) {
  return new Promise((done, failed) => {
    const asked = http.request(sends, { method: "POST", ...more }, (answer) => {
      let body = "";
      answer.on("data", (piece) => (body += piece));
      answer.on("end", () => {
        tell(what, answer.statusCode, body);
        done();
      });
    });
    asked.on("error", failed);
    write(asked);
  });
}

const json = "application/json";
const lines = "application/x-ndjson";
await post("length", json, send("by its length"));
await post("chunks", json, ReadableStream.from(pieces(send("in chunks"))), { duplex: "half" });
const text = send("late");
await post("late", json, ReadableStream.from(pieces("", text.slice(0, 9), text.slice(9))), {
  duplex: "half",
});
const streamed = ReadableStream.from(pieces(send("line one") + "\n", send("line two") + "\n"));
await post("stream", lines, streamed, { duplex: "half" });
await raw("expect", { headers: { ...headers(json), Expect: "100-continue" } }, (asked) => {
  asked.on("continue", () => asked.end(send("with leave")));
  asked.flushHeaders();
});
await raw(
  "wrong",
  { headers: { "Content-Type": json, Trailer: "Authorization", "Transfer-Encoding": "chunked" } },
  (asked) => {
    asked.write(send("the key behind it"));
    asked.addTrailers({ Authorization: `Bearer ${key}` });
    asked.end();
  },
);
await raw(
  "upgrade",
  { headers: { ...headers(json), Connection: "Upgrade", Upgrade: "h2c" } },
  (asked) => asked.end(send("with an upgrade")),
);
await post("large", json, "x".repeat(3_000_000));
await Promise.all([...Array(20).keys()].map((n) => post("at once", json, send(`at once ${n}`))));
const health = await fetch(`${url}/healthz`);
tell("health", health.status, await health.text());
