"""A stock Firefox judges the twin's push service: it subscribes, receives, decrypts and shows."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.contract.clients.test_web_push import KEY, Sent, by_pywebpush, public, running
from tests.firefox import IN_FIREFOX, Firefox, firefox, wait_for

from handbell.twin.threaded import RunningTwin

pytestmark = [*IN_FIREFOX]

WORKER = """
self.addEventListener("push", (event) => {
  const { title, tag } = event.data.json().notification;
  event.waitUntil(self.registration.showNotification(title, { tag }));
});
"""
SUBSCRIBE = """
return (async () => {
  await navigator.serviceWorker.register("/worker.js");
  const { pushManager } = await navigator.serviceWorker.ready;
  const options = { userVisibleOnly: true, applicationServerKey: arguments[0] };
  for (;;) {
    const late = new Promise((resolve) => { setTimeout(resolve, 500); });
    const subscription = await Promise.race([pushManager.subscribe(options), late]);
    if (subscription) return subscription.toJSON();
  }
})();
"""
UNSUBSCRIBE = """
return (async () => {
  const { pushManager } = await navigator.serviceWorker.ready;
  return (await pushManager.getSubscription()).unsubscribe();
})();
"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_what: Any) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder, and return its origin."""
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """Serve a page with a service worker, and return its address."""
    folder.mkdir()
    (folder / "index.html").write_text("<title>Shop</title>", encoding="utf-8")
    (folder / "worker.js").write_text(WORKER, encoding="utf-8")
    with serving(folder) as address:
        yield f"{address}/"


def send(twin: RunningTwin, subscription: Any, title: str, **headers: Any) -> int:
    """Send a message with pywebpush, and return the status of the answer."""
    sent: Sent = {
        "subscription": subscription,
        "payload": json.dumps({"notification": {"title": title, "tag": title}}),
        "headers": {"ttl": 60} | headers,
    }
    status: int = by_pywebpush(twin, KEY, [sent])[0]["status"]
    return status


def browser(twin: RunningTwin, tmp_path: Path) -> Any:
    """Run a Firefox with the profile of this test."""
    return firefox(tmp_path / "profile", twin.webpush_socket_url)


def test_firefox_shows_what_was_sent(tmp_path: Path) -> None:
    """A message is shown; after a restart what waited is, the latest of a topic; then 410."""
    with running(tmp_path / "twin") as twin, site(tmp_path / "site") as address:
        with browser(twin, tmp_path) as running_firefox:
            subscription = _subscribe(running_firefox, address)
            assert subscription["endpoint"].startswith(twin.webpush_url)
            assert send(twin, subscription, "Shown") == 201
            wait_for(lambda: running_firefox.notifications == ["Shown"])
        wait_for(lambda: not twin.browsers_connected)
        assert [
            send(twin, subscription, "Replaced", topic="news"),
            send(twin, subscription, "Lost", ttl=0),
            send(twin, subscription, "Latest", topic="news"),
        ] == [201, 201, 201]
        with browser(twin, tmp_path) as running_firefox:
            wait_for(lambda: running_firefox.notifications == ["Latest"])
            running_firefox.go_to(address)
            assert running_firefox.run(UNSUBSCRIBE) is True
        assert send(twin, subscription, "Too late") == 410
        verdicts = [request.what for request in twin.requests]
        assert verdicts == ["refused", "stored", "discarded", "stored", "sent"]


def test_firefox_subscribes_anew_when_its_subscription_is_gone(tmp_path: Path) -> None:
    """A fault that answers 410 ends the subscription in the browser too."""
    with (
        running(tmp_path / "twin") as twin,
        site(tmp_path / "site") as address,
        browser(twin, tmp_path) as running_firefox,
    ):
        former = _subscribe(running_firefox, address)
        twin.add_fault("answer", side="webpush", status=410)
        assert send(twin, former, "Gone") == 410
        running_firefox.go_to(address)

        def other() -> Any:
            found = running_firefox.run(SUBSCRIBE, public(KEY))
            return found if found["endpoint"] != former["endpoint"] else None

        renewed = wait_for(other)
        assert [send(twin, former, "Old"), send(twin, renewed, "New")] == [410, 201]
        wait_for(lambda: running_firefox.notifications == ["New"])


def _subscribe(running_firefox: Firefox, address: str) -> Any:
    running_firefox.go_to(address)
    return running_firefox.run(SUBSCRIBE, public(KEY))


def test_the_firefox_that_shows_the_page_is_one_of_the_phones(tmp_path: Path) -> None:
    """It has a card for what it showed, opened when the notification is clicked."""
    with running(tmp_path / "twin") as twin, browser(twin, tmp_path) as running_firefox:
        running_firefox.go_to(f"{twin.page_url}/static/browser.html")
        wait_for(lambda: running_firefox.run("return document.forms[0].elements.app.length"))
        running_firefox.click("button[type=submit]")
        (phone,) = wait_for(lambda: list(twin.phones.values()))
        subscription = {"endpoint": phone.token, "keys": json.loads(phone.details or "")}
        assert send(twin, subscription, "On both") == 201
        wait_for(lambda: running_firefox.notifications == ["On both"])
        (card,) = wait_for(lambda: twin.phone(phone.id).cards)
        assert (card.title, card.opened_at, phone.mail) == ("On both", None, "test@4d.com")
        running_firefox.click_notification("On both")
        wait_for(lambda: twin.phone(phone.id).cards[0].opened_at)
