// Sends the messages that it reads with web-push, and writes what became of each.
// Its input is a JSON list of {subscription, payload, headers: {ttl, urgency, topic}}, its output
// one of {status, headers, body}; see test_web_push.py.
import { readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import webpush from 'web-push';

const { env } = process;
webpush.setVapidDetails(env.CLIENT_SUBJECT, env.CLIENT_PUBLIC_KEY, env.CLIENT_PRIVATE_KEY);
const agent = new Agent({ ca: readFileSync(env.CLIENT_CA_FILE), keepAlive: true });

async function send({ subscription, payload, headers: { ttl, urgency, topic } }) {
  const options = { TTL: ttl, urgency, topic, agent };
  try {
    const { statusCode, headers, body } = await webpush.sendNotification(subscription, payload, options);
    return { status: statusCode, headers, body };
  } catch (problem) {
    const { statusCode = 0, headers = {}, body = problem.message } = problem;
    return { status: statusCode, headers, body };
  }
}

const results = [];
for (const message of JSON.parse(readFileSync(0, 'utf8'))) results.push(await send(message));
console.log(JSON.stringify(results));
agent.destroy();
