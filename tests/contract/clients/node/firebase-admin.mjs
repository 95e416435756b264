// Sends messages with firebase-admin as it is, and writes what became of each.
// Its input and output are those of firebase-admin/send.py. Google's names are mapped to the twin;
// NODE_EXTRA_CA_CERTS tells Node whom to trust.
import { readFileSync } from 'node:fs';
import { cert, initializeApp } from 'firebase-admin/app';
import { getMessaging } from 'firebase-admin/messaging';

const app = initializeApp({ credential: cert(JSON.parse(readFileSync(process.argv[2], 'utf8'))) });
const messaging = getMessaging(app);

function message({ token, data, ttl, collapse_key: collapseKey, tag }) {
  const notification = { channelId: 'orders', ...(tag && { tag }) };
  const android = { notification, ...(ttl && { ttl: ttl * 1000 }), ...(collapseKey && { collapseKey }) };
  return { token, notification: { title: 'Hello', body: 'Grüße 👋' }, android, ...(data && { data }) };
}

async function send(said) {
  try {
    if (said.how === 'each') {
      const { responses: [one] } = await messaging.sendEach([message(said)]);
      if (!one.success) {
        throw one.error;
      }
      return [one.messageId];
    }
    return [await messaging.send(message(said), said.dry_run ?? false)];
  } catch (error) {
    return [error.constructor.name, error.code];
  }
}

for (const line of readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
  console.log(JSON.stringify(await send(JSON.parse(line))));
}
process.exit(0);
