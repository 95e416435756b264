// Sends the pushes that it reads with @parse/node-apn, and writes what became of each.
// Its input and output are those of every program here; see judgements.py.
import { readFileSync } from 'node:fs';
import apn from '@parse/node-apn';

const { env } = process;
const provider = new apn.Provider({
  token: { key: env.CLIENT_KEY_FILE, keyId: env.CLIENT_KEY_ID, teamId: env.CLIENT_TEAM_ID },
  ca: env.CLIENT_CA_FILE,
  address: new URL(env.CLIENT_URL).host,
  port: Number(new URL(env.CLIENT_URL).port),
});

function read(fields) {
  const [, topic, pushType, priority, expiration, collapseId, id, payload] = fields;
  const push = new apn.Notification();
  Object.assign(push, { topic, pushType, collapseId, id, rawPayload: JSON.parse(payload) });
  push.priority = priority === '' ? undefined : Number(priority);
  push.expiry = expiration === '' ? -1 : Number(expiration);
  return push;
}

async function send(line) {
  const fields = line.split('\t');
  const { failed } = await provider.send(read(fields), fields[0]);
  if (failed.length === 0) {
    return ['200', '', '', ''].join('\t');
  }
  const [{ status, response, error }] = failed;
  const since = response?.timestamp ?? '';
  return [status ?? 0, response?.reason ?? error.message, since, ''].join('\t');
}

const [first, ...others] = readFileSync(0, 'utf8').split('\n').filter(Boolean);
// The first goes alone, as Apple asks of a new connection.
const results = [await send(first)];
if (env.CLIENT_IN_TURN) {
  for (const line of others) {
    results.push(await send(line));
  }
} else {
  results.push(...(await Promise.all(others.map(send))));
}
console.log(results.join('\n'));
provider.shutdown();
