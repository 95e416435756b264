"""*Activity*: the chart, the list and one notification's page, over a real socket."""

import html
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import insert
from tests.buried import bury
from tests.conftest import Stage
from tests.console import Visitor, open_console
from tests.reported import report

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Options
from handbell.delivery.policy.circuit import CircuitScope, CircuitStop, StoredCircuit
from handbell.storage.tables import tallies


class Console:
    """A signed-in console, and sends that go through its own engine."""

    def __init__(self, stage: Stage, visitor: Visitor, run: Any) -> None:
        self.stage, self.visitor, self._run = stage, visitor, run
        self.home = f"/console/apps/{stage.app.id}/activity"

    def get(self, path: str = "", *, status: int = 200) -> str:
        """Return a page below Activity as text."""
        answer = self.visitor.get(self.home + path)
        assert answer.status_code == status, answer.text
        return html.unescape(answer.text)

    def send(self, to: object, *, wait: bool = True, **said: Any) -> str:
        """Send through the server's engine and return the notification's id."""
        how = Options.read(send_at=said.pop("send_at", None))
        content = Notification.read({"title": "Hello", **said})
        engine, app = self.stage.system.engine, self.stage.app
        named = Recipients.read(to)
        if wait:
            sent = self._run(engine.send(app, content, named, how))
            return str(sent.notification_id)
        accepted, _ = self._run(engine.accept(app, content, named, how))
        return str(accepted.id)

    def live(self, number: str, tag: str = "") -> Any:
        """Return the answer to the page's script."""
        headers = {"x-fragment": "1", **({"if-none-match": tag} if tag else {})}
        return self.visitor.get(f"{self.home}/{number}/live", headers=headers)


@pytest.fixture
def console(stage: Stage) -> Iterator[Console]:
    """Run a console whose worker sends to the stage's twin."""
    with open_console(stage.system) as desk, desk.signed_in() as visitor:
        yield Console(stage, visitor, desk.server.run)


def _bar(page: str) -> tuple[str, ...]:
    """Return the numbers of the chart's legend: sent, opened, failed."""
    return tuple(re.findall(r"<strong>([\d,]+)</strong> (?:sent|opened|failed)", page))


def _funnel(page: str) -> list[str]:
    return re.findall(r'class="funnel-number"><strong>([\d,]+)', page)


def test_an_empty_page_says_what_to_do_next(console: Console) -> None:
    """Where nothing was sent there is a way to write the first one."""
    page = console.get()
    assert "Nothing was sent yet" in page
    assert "Write the first one" in page
    assert _bar(page) == ("0", "0", "0")
    # The open page takes that away with the first notification that it hears of.
    assert re.search(r'<div id="sent"[^>]* data-also="[^"]*\bbeginning\b', page)
    assert "Nothing fits that filter" in console.get("?text=lunch")


def test_the_overview_counts_what_went_out(console: Console) -> None:
    """Chart, table, queue and list say what the ledger says."""
    console.stage.add_phone("user1@example.com")
    console.stage.register("gone@example.com", "ab" * 32)
    sent = console.send(["user1@example.com", "gone@example.com"])
    (first, _) = console.stage.system.ledger.deliveries_of(sent)
    report(console.stage.system, "opened", first.apns_id)
    console.send("user1@example.com", send_at="2099-01-01T10:00Z", wait=False)
    for span in ("day", "month"):
        page = console.get(f"?span={span}")
        assert _bar(page) == ("1", "1", "1")
    assert "1 of 2 sent · 1 opened · " in page
    assert page.count('class="sent-title"') == 2
    assert re.search(r"<dt>For later</dt><dd>1", page)
    assert re.search(r"<dt>Workers</dt><dd>1", page)
    assert "Planned" in page


def test_the_chart_is_of_all_push_services_or_of_one(console: Console) -> None:
    """Which can be chosen where several have a share; the span and the filter keep the choice."""
    console.stage.add_phone("user1@example.com")
    console.send("user1@example.com")
    system, app = console.stage.system, console.stage.app
    assert "Push service of the chart" not in console.get()
    (bucket,) = system.reports.trend(app, hours=1, buckets=1)
    with system.database.write() as connection:
        counts = {"sent": 5, "failed": 2, "displayed": 0, "opened": 1}
        connection.execute(
            insert(tallies).values(app=app.id, service="fcm", hour=bucket.start, **counts)
        )
    assert _bar(console.get()) == ("6", "1", "2")
    page = console.get("?service=fcm&span=month")
    assert _bar(page) == ("5", "1", "2")
    assert 'aria-current="true">FCM</a>' in page
    assert "?span=day&service=fcm" in page
    assert '<input type="hidden" name="service" value="fcm">' in page
    assert _bar(console.get("?service=apns")) == ("1", "0", "0")
    assert _bar(console.get("?service=webpush")) == ("0", "0", "0")
    assert _bar(console.get("?service=nothing")) == ("6", "1", "2")


def test_the_list_is_filtered_and_goes_on(console: Console) -> None:
    """Text and state narrow it; a page of 25 leads to the rest."""
    console.stage.add_phone("user1@example.com")
    ids = [
        console.send("user1@example.com", wait=False, title=f"Number {place}")
        for place in range(27)
    ]
    page = console.get()
    assert page.count('class="sent-title"') == 25
    older = re.search(r'rel="next" href="([^"]*)"', page)
    assert older is not None
    path = older[1].removeprefix(console.home).partition("#")[0]
    rest = console.get(path)
    assert re.findall(r'class="whole" href="[^"]*/([0-9a-f]+)"', rest) == ids[1::-1]
    page = console.get("?text=number+13")
    assert re.findall(r'class="whole" href="[^"]*/([0-9a-f]+)"', page) == [ids[13]]
    assert "Nothing fits" in console.get("?standing=failed")
    assert console.get("?standing=nonsense&before=nonsense&span=nonsense").count("sent-title") == 25


def test_what_stops_sending_is_said(console: Console) -> None:
    """An open circuit and an app that is switched off stand on top, with the way to mend it."""
    system, app = console.stage.system, console.stage.app
    stop = CircuitStop(
        reason="InvalidProviderToken", detail="", since=time.time(), probe_at=time.time()
    )
    (key,) = system.apps.credentials(app)
    place = CircuitScope(app.id, "production", key.fingerprint, app.apple.bundle_id)
    system.rules_store.note(StoredCircuit(place, None, stop))
    system.app_control.switch(app, is_enabled=False)
    assert not _says_on(console.visitor, app.id)
    page = console.get()
    assert "has been stopped since" in page
    assert "InvalidProviderToken" in page
    assert "is switched off" in page
    other = system.apps.add("TEAM654321", "com.sample.second", name="Second")
    answer = console.visitor.get(f"/console/apps/{other.id}/activity")
    assert "stopped for another app" in answer.text
    assert "InvalidProviderToken" not in answer.text


def test_an_outage_of_the_push_service_is_said(console: Console) -> None:
    """Who looks learns that nothing is taken, why, and that nobody has to do anything."""
    system, app = console.stage.system, console.stage.app
    (key,) = system.apps.credentials(app)
    stop = CircuitStop(
        reason="HTTP 502",
        detail="",
        since=time.time(),
        probe_at=time.time(),
        environment="production",
    )
    system.rules_store.note(
        StoredCircuit(CircuitScope("", "production", key.fingerprint), None, stop)
    )
    assert not _says_on(console.visitor, app.id)
    page = console.get()
    assert "has been unavailable since" in page
    assert "HTTP 502" in page
    other = system.apps.add("TEAM654321", "com.sample.second", name="Second")
    answer = console.visitor.get(f"/console/apps/{other.id}/activity")
    assert "HTTP 502" not in answer.text


def test_a_server_without_a_worker_says_that_nobody_sends(stage: Stage) -> None:
    """Where no worker lives the page names the command."""
    with (
        open_console(stage.system, with_worker=False) as desk,
        desk.signed_in() as visitor,
    ):
        stage.add_phone("user1@example.com")
        said = {"do": "send", "title": "Hello", "to": "people", "recipients": "user1@example.com"}
        answer = visitor.post(f"/console/apps/{stage.app.id}/compose", said)
        assert "Accepted" in answer.text
        page = visitor.get(f"/console/apps/{stage.app.id}/activity").text
        assert not _says_on(visitor, stage.app.id, on_list=True)
    assert "No worker is running" in page
    assert "handbell worker" in page
    assert re.search(r"<dt>Due now</dt><dd>1", page)


def _says_on(visitor: Visitor, app: str, *, on_list: bool = False) -> bool:
    """Return whether Publishing, or the list of the apps, says that push is on.

    That no worker runs is said of no single app (``on_list``).
    """
    pages = [visitor.get(f"/console/apps/{app}").text]
    pages += [] if on_list else [visitor.get("/console/apps").text]
    return any("Push is on" in page for page in pages)


def test_what_is_held_up_names_no_time_at_which_it_goes(console: Console) -> None:
    """Until somebody switches the app on it does not go; what is planned has its time."""
    system, app = console.stage.system, console.stage.app
    console.stage.add_phone("user1@example.com")
    planned = console.send("user1@example.com", send_at="2099-01-01T10:00Z", wait=False)
    assert "the next at" in console.get(f"/{planned}")
    system.app_control.switch(app, is_enabled=False)
    stuck = console.send("user1@example.com")
    page = console.get(f"/{stuck}")
    assert "Held up" in page
    assert "the next at" not in page
    assert "The next at" not in console.get()


def test_a_notification_has_its_funnel_reasons_and_deliveries(console: Console) -> None:
    """The page of one notification says to whom, what became of it, why not, and what to do."""
    console.stage.add_phone("user1@example.com")
    console.stage.register("gone@example.com", "ab" * 32)
    sent = console.send(["user1@example.com", "gone@example.com"], body="<b>bold</b> & 'quoted'")
    page = console.get(f"/{sent}")
    assert _funnel(page) == ["2", "1", "0", "0"]
    assert "BadDeviceToken" in page
    assert "To do: <span>let the app register again" in page
    assert "/person?mail=user1%40example.com" in page
    assert "<b>bold</b>" not in console.visitor.get(f"{console.home}/{sent}").text
    failed = console.get(f"/{sent}?state=failed").partition('id="deliveries"')[2]
    assert "gone@example.com</a>" in failed
    assert "user1@example.com</a>" not in failed
    assert "No delivery fits" in console.get(f"/{sent}?mail=nobody@example.com")


def test_many_deliveries_come_in_pages(console: Console) -> None:
    """Each delivery is on one of the pages, which keep the filter."""
    for place in range(30):
        console.stage.add_phone(f"user{place}@example.com")
    sent = console.send({"everybody": True})
    page = console.get(f"/{sent}?state=sent")
    following = re.search(r'rel="next" href="([^"]*)"', page)
    assert following is not None
    assert "state=sent" in following[1]
    rest = console.get(following[1].removeprefix(console.home).partition("#")[0])
    listed = [re.findall(r">(user\d+@example.com)</a>", one) for one in (page, rest)]
    assert [len(one) for one in listed] == [25, 5]
    assert len(set(listed[0] + listed[1])) == 30


def test_the_live_part_changes_only_when_something_did(console: Console) -> None:
    """The page's script is told 304 until the phone reports, and to stop when all is opened."""
    console.stage.add_phone("user1@example.com")
    sent = console.send("user1@example.com")
    first = console.live(sent)
    assert 'data-live="' in first.text
    tag = first.headers["etag"]
    assert console.live(sent, tag).status_code == 304
    (delivery,) = console.stage.system.ledger.deliveries_of(sent)
    report(console.stage.system, "displayed", delivery.apns_id)
    report(console.stage.system, "opened", delivery.apns_id)
    deadline = time.monotonic() + 5
    while _funnel((last := console.live(sent, tag)).text) != ["1", "1", "1", "1"]:
        assert time.monotonic() < deadline
    assert 'data-live="' not in last.text
    assert console.visitor.client.get(f"{console.home}/{sent}/live").status_code == 303


def test_the_open_list_hears_of_a_new_notification(console: Console) -> None:
    """The script that looks again gets the list anew once there is something, else 304."""
    headers = {"x-fragment": "1"}
    first = console.visitor.get(console.home, headers=headers)
    known = {**headers, "if-none-match": first.headers["etag"]}
    assert console.visitor.get(console.home, headers=known).status_code == 304
    console.send("nobody@example.com", title="Something new")
    deadline = time.monotonic() + 5
    while "Something new" not in (console.visitor.get(console.home, headers=known)).text:
        assert time.monotonic() < deadline


def test_what_is_not_sent_yet_is_taken_back_after_asking(console: Console) -> None:
    """The question names what was sent; yes takes the rest back, once, and is in the trail."""
    console.stage.add_phone("user1@example.com")
    sent = console.send("user1@example.com", send_at="2099-01-01T10:00Z", wait=False)
    assert "Cancel the rest" in console.get(f"/{sent}")
    assert "Nothing was sent yet of 1" in console.get(f"/{sent}/cancel")
    answer = console.visitor.post(f"{console.home}/{sent}/cancel")
    assert "1 delivery cancelled" in answer.text
    page = console.get(f"/{sent}")
    assert "Cancelled" in page
    assert "Cancel the rest" not in page
    answer = console.visitor.post(f"{console.home}/{sent}/cancel")
    assert "nothing left" in answer.text
    trail = [
        one for one in console.stage.system.audit.list() if one.action == "notification.cancel"
    ]
    assert [one.subject for one in trail] == [sent, sent]


def test_a_dead_letter_is_seen_and_sent_again(console: Console) -> None:
    """Activity filters by it, its page says what happened, and a button sends it again."""
    console.stage.add_phone("user1@example.com")
    sent = console.send("user1@example.com", send_at="2099-01-01T10:00Z", wait=False)
    bury(console.stage.system, console.stage.app, sent)
    assert "Dead letters" in console.get("?standing=dead_letter")
    assert "1 dead letter in all apps" in console.get("")
    page = console.get(f"/{sent}")
    assert "Handbell itself failed to send it" in page
    assert f'action="{console.home}/{sent}/resend"' in page
    answer = console.visitor.post(f"{console.home}/{sent}/resend")
    assert "1 dead letter sent again" in answer.text
    assert "Dead letters" not in answer.text
    assert "no dead letter left" in console.visitor.post(f"{console.home}/{sent}/resend").text


def test_a_notification_of_another_app_is_not_there(console: Console) -> None:
    """An id of another app, or of nobody, is not found under this one."""
    other = console.stage.system.apps.add("TEAM654321", "com.sample.second", name="Second")
    sent = console.send("nobody@example.com")
    for path in ("", "/live", "/cancel"):
        answer = console.visitor.get(
            f"/console/apps/{other.id}/activity/{sent}{path}", headers={"x-fragment": "1"}
        )
        assert answer.status_code == 404
    answer = console.visitor.post(f"/console/apps/{other.id}/activity/{sent}/cancel")
    assert answer.status_code == 404
    assert console.get(f"/{sent}").count("had no device") == 1
    console.get("/000000000000000", status=404)
