// Sends one alert to each device token of a file with the npm package apns2, by `sendMany` as its
// README advises. Its argument and its answer are those of every program of this bench
// (see bench/job.py).
import { readFileSync } from "node:fs";
import { ApnsClient, Notification } from "apns2";
import { Pool } from "undici";

const asked = JSON.parse(process.argv[2]);
const client = new ApnsClient({
  team: asked.team_id,
  keyId: asked.key_id,
  signingKey: readFileSync(asked.key_file),
  defaultTopic: asked.topic,
});
// The package knows port 443 alone, so its pool is replaced by one for our port. With the pool's own
// settings each connection carries one request at a time; one connection with as many streams as the
// package allows is faster here, and what Apple asks for.
await client.close();
client.client = new Pool(asked.url, {
  connections: 1,
  pipelining: 100,
  allowH2: true,
  maxConcurrentStreams: 100,
  connect: { ca: readFileSync(asked.ca_file) },
});

function send(tokens) {
  const alert = { title: asked.title, body: asked.body };
  return client.sendMany(tokens.map((token) => new Notification(token, { alert })));
}

const tokens = readFileSync(asked.tokens, "utf8").split("\n").slice(0, asked.warm_up + asked.count);
await send(tokens.slice(0, asked.warm_up));
const started = performance.now();
const before = process.cpuUsage();
const answers = await send(tokens.slice(asked.warm_up));
const seconds = (performance.now() - started) / 1000;
const cpu = process.cpuUsage(before);
const refused = answers.filter((answer) => answer.error);
const broken = refused.find((answer) => !answer.error.reason);
if (broken) throw broken.error;
console.log(
  JSON.stringify({
    accepted: answers.length - refused.length,
    refused: refused.length,
    seconds,
    cpu_seconds: (cpu.user + cpu.system) / 1e6,
  }),
);
await client.destroy();
