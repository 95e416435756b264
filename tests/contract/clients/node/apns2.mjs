// Sends the pushes that it reads with apns2, and writes what became of each.
// Its input and output are those of every program here; see judgements.py. It goes to Apple's own
// name, which is mapped to the twin; NODE_EXTRA_CA_CERTS tells Node whom to trust.
import { readFileSync } from 'node:fs';
import { ApnsClient, Notification } from 'apns2';

const { env } = process;
const client = new ApnsClient({
  team: env.CLIENT_TEAM_ID,
  keyId: env.CLIENT_KEY_ID,
  signingKey: readFileSync(env.CLIENT_KEY_FILE, 'ascii'),
});

async function send(line) {
  const [token, topic, type, priority, expiration, collapseId, , payload] = line.split('\t');
  const { aps, ...data } = JSON.parse(payload);
  const options = { aps, data, topic, type, collapseId };
  if (priority !== '') {
    options.priority = Number(priority);
  }
  if (expiration !== '') {
    options.expiration = Number(expiration);
  }
  try {
    await client.send(new Notification(token, options));
    return ['200', '', '', ''].join('\t');
  } catch (error) {
    const since = error.response?.timestamp ?? '';
    return [error.statusCode ?? 0, error.reason ?? error.message, since, ''].join('\t');
  }
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
await client.destroy();
