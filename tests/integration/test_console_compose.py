"""*Compose*: what the form says, shows and sends, over a real socket and without a script."""

import html
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.console import Desk, Visitor, open_console, open_rehearsal

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.template import Template
from handbell.settings import Settings
from handbell.system import System
from handbell.twin.discovery import read_address, write_address
from handbell.twin.threaded import RunningTwin

FORM = {"title": "Hello", "to": "people", "recipients": "test@4d.com", "when": "now"}


class Console:
    """A signed-in console over a twin, and what became of sends."""

    def __init__(self, desk: Desk, visitor: Visitor, twin: RunningTwin, app: App) -> None:
        self.desk, self.visitor, self.twin, self.app = desk, visitor, twin, app
        self.home = f"/console/apps/{app.id}"

    @property
    def system(self) -> System:
        """The Handbell behind the console."""
        return self.desk.system

    def post(self, path: str = "/compose", **said: Any) -> tuple[int, str]:
        """Post the form with some fields changed, and return the status and the page's text."""
        answer = self.visitor.post(self.home + path, {"do": "send", **FORM, **said})
        return answer.status_code, html.unescape(answer.text)

    def get(self, path: str) -> str:
        """Return a page of the app as text."""
        answer = self.visitor.get(self.home + path)
        assert answer.status_code == 200, answer.text
        return html.unescape(answer.text)

    def preview(self, **said: Any) -> dict[str, Any]:
        """Return what the page's script is told about a draft."""
        answer = self.visitor.post(f"{self.home}/compose/preview", {**FORM, **said})
        assert answer.status_code == 200
        told: dict[str, Any] = answer.json()
        return told

    @property
    def sent(self) -> list[str]:
        """The titles of what was accepted, the newest first."""
        return [one.title for one in self.system.reports.newest(self.app)]

    @property
    def trail(self) -> list[str]:
        """What the audit trail says of sends and cancels, the newest first."""
        return [
            f"{one.action} {one.detail}"
            for one in self.system.audit.list()
            if one.action.startswith("notification.") and one.app == self.app.id
        ]


House = tuple[Desk, Visitor, RunningTwin]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Run one console and one twin for all tests; each test has an app of its own."""
    with (
        open_rehearsal(tmp_path_factory.mktemp("house")) as (system, twin, _),
        open_console(system) as desk,
        desk.signed_in() as visitor,
    ):
        yield desk, visitor, twin


@pytest.fixture
def console(house: House) -> Console:
    """Give a console with an app that has a key and one phone, of test@4d.com."""
    desk, visitor, twin = house
    number = len(desk.system.apps.list())
    app = desk.system.apps.add("TEAM123456", f"com.sample.app{number}", name=f"App {number}")
    desk.system.apps.add_credential(app, make_key(app.apple.team_id), environment="twin")
    twin.add_app(app.id, app.name)
    twin.add_phone(mail="test@4d.com", app=app.id)
    return Console(desk, visitor, twin, app)


def _hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, name
    return found[1]


def test_a_send_leads_to_its_page_and_into_the_audit_trail(console: Console) -> None:
    """A named person is sent to at once; the next page is the notification's."""
    status, page = console.post(once=_hidden(console.get("/compose"), "once"))
    assert status == 200
    assert "Accepted" in page
    assert "Displayed" in page
    assert console.sent == ["Hello"]
    assert console.trail == ["notification.send to test@4d.com: Hello"]


def test_a_form_posted_twice_is_sent_once(console: Console) -> None:
    """The key in the form makes the second post the first one's answer."""
    once = _hidden(console.get("/compose"), "once")
    pages = [console.post(once=once)[1] for _ in range(2)]
    assert console.sent == ["Hello"]
    assert len(console.trail) == 1
    assert all("test@4d.com" in page for page in pages)


def test_a_form_sent_before_and_changed_asks_once_more(console: Console) -> None:
    """Back and edited is another notification, but not without being told."""
    once = _hidden(console.get("/compose"), "once")
    console.post(once=once)
    status, page = console.post(once=once, title="Something else")
    assert status == 409
    assert "sent before" in page
    assert console.sent == ["Hello"]
    console.post(once=_hidden(page, "once"), title="Something else")
    assert console.sent == ["Something else", "Hello"]


def test_a_broadcast_is_sent_only_when_the_box_is_ticked(console: Console) -> None:
    """Everybody is asked about with the count; without the tick nothing goes out."""
    console.twin.add_phone(mail="user1@example.com", app=console.app.id)
    console.twin.add_phone(mail="user1@example.com", app=console.app.id)
    _, page = console.post(to="everybody", recipients="")
    assert "3 devices" in page
    assert "2 people" in page
    assert console.sent == []
    carried = {name: _hidden(page, name) for name in ("title", "to")}
    status, page = console.post("/compose/send", **carried, once=f"confirmed {console.app.id}")
    assert (status, console.sent) == (422, [])
    assert "Tick the box" in page
    form = console.post(do="edit", **carried)[1]
    assert 'value="Hello"' in form
    assert 'value="everybody" checked' in form
    status, _ = console.post(
        "/compose/send", **carried, once=f"confirmed {console.app.id}", sure="1"
    )
    assert (status, console.sent) == (200, ["Hello"])


def test_a_post_straight_to_the_confirmed_address_still_needs_the_tick(console: Console) -> None:
    """The question cannot be left out by posting elsewhere."""
    status, _ = console.post("/compose", to="everybody", recipients="", sure="1")
    assert (status, console.sent) == (200, [])


@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"title": ""}, "title", "nothing to show"),
        ({"recipients": ""}, "recipients", "Nobody is named"),
        ({"recipients": "nobody@example.com"}, "recipients", "Nobody is reached"),
        ({"recipients": "test@4d.com\nfoo"}, "recipients", "'foo': it is neither a mail"),
        ({"badge": "many"}, "badge", "Badge: 'many' is not a number"),
        ({"badge": "99999999999"}, "badge", '"Badge" is the number 99999999999'),
        ({"badge": "1_000"}, "badge", "Badge: '1_000' is not a number"),
        ({"ttl": "soon"}, "ttl", "Kept for: 'soon' is not a number"),
        ({"relevance_score": "nan"}, "relevance_score", '"Relevance" is the number nan'),
        ({"user_info": "{"}, "user_info", "For the app: that is not JSON: a name in double quotes"),
        ({"user_info": '{"a": [1e999]}'}, "user_info", 'a[0] in "For the app"'),
        ({"user_info": '{"aps": 1}'}, "user_info", "Handbell writes itself"),
        ({"when": "at", "send_at": ""}, "send_at", "No day and time is chosen"),
        ({"when": "at", "send_at": "2030-01-01T10:00", "zone": "Nowhere"}, "zone", "time zone"),
        ({"when": "local", "send_at": "soon"}, "send_at", "Write 2026"),
        ({"when": "local", "send_at": "soon"}, "send_at", '"Day and time" is the text'),
        ({"when": "at", "send_at": "soon"}, "send_at", "Day and time: 'soon' is none"),
        ({"silent": "1"}, "silent", 'beside "Title"'),
        ({"body": "x" * 5000}, "body", 'that Apple takes. Shorten "Text"'),
        ({"language-tag-0": "??", "language-title-0": "x"}, "language-tag-0", "language tag"),
        ({"template": "none"}, "template", "template"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(
    console: Console, said: dict[str, str], field: str, words: str
) -> None:
    """Each fault stands beside the field that can be mended, and nothing is sent."""
    status, page = console.post(**said)
    assert status == 422
    found = re.search(rf'<p class="fault" id="{field}-fault">([^<]*)</p>', page)
    assert found is not None, re.findall(r'class="fault" id="([^"]*)"', page)
    assert words in found[1]
    assert console.sent == []


def test_what_was_written_stays_in_the_form(console: Console) -> None:
    """After a fault every field is as it was, markup and quotes among it."""
    said = {"title": '"><script>alert(1)</script>', "body": "Line 1\nLine 2 & <b>", "badge": "x"}
    answer = console.visitor.post(f"{console.home}/compose", {"do": "send", **FORM, **said})
    assert "<script>alert(1)" not in answer.text
    page = html.unescape(answer.text)
    assert f'value="{said["title"]}"' in page
    assert said["body"] in page


def test_the_preview_tells_exact_bytes_and_people(console: Console) -> None:
    """The script is told what a send would make of the draft, and who is left out."""
    told = console.preview(recipients="test@4d.com, nobody@example.com")
    (own,) = told["services"][0]["languages"]
    assert own["size"] == len(own["payload"].encode())
    assert own["limit"] == 4096
    assert told["reaches"].startswith("Reaches 1 person on 1 device; 1 of those named")
    (left_out,) = told["left_out"]
    assert left_out.startswith("nobody@example.com has no device")
    assert told["faults"] == {}
    everybody = console.preview(to="everybody", recipients="")
    assert everybody["reaches"] == "Reaches 1 person on 1 device."
    empty = console.preview(title="", recipients="")
    assert empty["faults"] == {}
    # Said once the form was sent, and then it stays until it is written.
    assert "recipients" in empty["unsaid"]
    assert empty["reaches"] == ""


def test_the_preview_without_a_script_is_the_page(console: Console) -> None:
    """The button Preview shows the same on the page, and sends nothing."""
    status, page = console.post(do="preview", body="Text")
    assert status == 200
    assert "of 4,096 bytes" in page
    assert "Reaches 1 person on 1 device." in page
    assert console.sent == []


def test_a_test_goes_to_one_address_and_is_remembered(console: Console) -> None:
    """The test is sent now, whatever the form says of recipients; its address is there again."""
    said = {
        "do": "test",
        "test_to": "test@4d.com",
        "recipients": "",
        "test_once": f"test {console.app.id}",
    }
    status, page = console.post(**said)
    assert status == 200
    assert "on its way to test@4d.com" in page
    console.post(**said)
    assert console.sent == ["Hello"]
    assert console.trail == ["notification.send a test to test@4d.com: Hello"]
    assert 'id="test_to" name="test_to" type="email" value="test@4d.com"' in console.get("/compose")
    status, page = console.post(do="test", test_to="nobody@example.com")
    assert "nobody@example.com has no device" in page
    status, page = console.post(do="test", test_to="foo")
    assert status == 422
    assert 'id="test_to-fault"' in page


def test_a_time_is_one_moment_or_local(console: Console) -> None:
    """A moment is read in the zone that is named, a local time has none."""
    console.post(when="at", send_at="2099-01-01T10:00", zone="Europe/Paris")
    console.post(when="local", send_at="2099-01-01T10:00", once=f"second {console.app.id}")
    times = [
        console.system.reports.funnel(one.id).send_at
        for one in console.system.reports.newest(console.app)
    ]
    local = console.system.reports.newest(console.app)[0].id
    assert "2099-01-01 10:00 wherever each recipient is" in console.get(f"/activity/{local}")
    assert times == ["2099-01-01T10:00:00", "2099-01-01T09:00:00+00:00"]


def test_languages_are_written_one_by_one(console: Console) -> None:
    """A button gives room for another language; all of them are sent."""
    page = console.post(do="language", **{"language-tag-0": "fr", "language-title-0": "Bonjour"})[1]
    assert 'name="language-tag-1"' in page
    told = console.preview(**{"language-tag-0": "fr", "language-title-0": "Bonjour"})
    assert [one["language"] for one in told["services"][0]["languages"]] == [None, "fr"]
    console.post(**{"language-tag-0": "fr", "language-title-0": "Bonjour"})
    (sent,) = console.system.reports.newest(console.app)
    assert console.system.reports.funnel(sent.id).content["languages"] == {
        "fr": {"title": "Bonjour"}
    }


def test_a_template_asks_for_its_variables(console: Console) -> None:
    """The chosen template's variables are fields; a missing one is said."""
    content = {"name": "welcome", "notification": {"title": "Hello {{ name }}"}}
    console.system.templates.put(console.app, Template.read(content))
    page = console.post(do="preview", template="welcome", title="")[1]
    assert 'name="variable-name"' in page
    status, page = console.post(template="welcome", title="")
    assert (status, console.sent) == (422, [])
    assert 'id="template-fault"' in page
    console.post(template="welcome", title="", **{"variable-name": "Zoe"})
    assert console.sent == ["Hello Zoe"]


def test_a_former_one_is_written_again_or_replaced(console: Console) -> None:
    """Again fills the form; replace sends to who got it, once."""
    console.post(title="Score 1:0", collapse_id="match", url="https://example.com/a")
    (former,) = console.system.reports.newest(console.app)
    again = console.get(f"/compose?{urlencode({'again': former.id})}")
    assert 'value="Score 1:0"' in again
    assert "test@4d.com</textarea>" in again
    page = console.get(f"/compose?replaces={former.id}")
    assert 'name="recipients"' not in page
    said = {"replaces": former.id, "once": _hidden(page, "once"), "title": "Score 2:0"}
    for _ in range(2):
        assert console.post(**said)[0] == 200
    assert console.sent == ["Score 2:0", "Score 1:0"]
    answer = console.visitor.get(f"{console.home}/compose?again=000000000000000")
    assert answer.status_code == 404


def test_an_app_without_a_key_says_so_in_the_form(console: Console) -> None:
    """What keeps the send from being stored is a fault of the form, with its fix."""
    for stored in console.system.apps.credentials(console.app):
        console.system.apps.remove_credential(console.app, stored.key_id)
    status, page = console.post()
    assert status == 422
    assert "has no key for twin" in page
    assert 'value="Hello"' in page


def test_a_virtual_phone_is_made_and_its_card_opened(console: Console) -> None:
    """A phone of a new person registers itself, shows what is sent, and reports the opening."""
    for stored in console.system.apps.credentials(console.app):
        console.system.apps.remove_credential(console.app, stored.key_id)
    answer = console.visitor.post(f"{console.home}/phones", {"phone_mail": "new@example.com"})
    assert "new@example.com has a virtual phone" in html.unescape(answer.text)
    # The app had no key, so it got one that only the twin takes.
    (key,) = console.system.apps.credentials(console.app)
    assert key.environment == "twin"
    console.post(recipients="new@example.com")
    phone = next(one for one in console.twin.phones.values() if one.mail == "new@example.com")
    for _ in range(200):
        phone = console.twin.phone(phone.id)
        if phone.cards:
            break
        console.get("/activity")
    (card,) = phone.cards
    fragment = console.visitor.get(
        f"{console.home}/phones?phone={phone.id}", headers={"x-fragment": "1"}
    )
    assert "Hello" in fragment.text
    known = {"x-fragment": "1", "if-none-match": fragment.headers["etag"]}
    again = console.visitor.get(f"{console.home}/phones?phone={phone.id}", headers=known)
    assert again.status_code == 304
    console.visitor.post(f"{console.home}/phones/open", {"phone": phone.id, "card": card.id})
    assert console.twin.phone(phone.id).cards[0].opened_at is not None
    _its_own_page_shows_it_alone(console, phone.id, card.id)
    # The console leads to the page of the phones by the link that opens it, /docs by the console.
    assert f'href="{console.twin.page_link}"' in console.get("/people")
    docs = console.visitor.get("/docs").text
    (path,) = re.findall(r'href="[^"]*(/console/phones)"', docs)
    there = console.visitor.client.get(path)
    assert there.headers["location"] == console.twin.page_link


def _its_own_page_shows_it_alone(console: Console, phone_id: str, card_id: str) -> None:
    """Read its page, with the phone while the card is there, then with a drawing of it."""
    console.post(title="The other one", recipients="test@4d.com")
    (sent,) = [one for one in console.system.reports.newest(console.app) if one.title == "Hello"]
    page = console.get(f"/activity/{sent.id}")
    assert 'id="virtual-phone"' in page
    console.twin.dismiss_card(phone_id, card_id)
    page = console.get(f"/activity/{sent.id}")
    assert 'id="virtual-phone"' not in page
    assert '<p class="push-title">Hello</p>' in page


def test_every_phone_s_report_of_a_broadcast_is_counted(console: Console) -> None:
    """Virtual phones show it before the ledger says that it was sent; no report is lost."""
    phones = 60
    console.twin.call(
        lambda twin: [
            twin.add_phone(mail=f"user{one}@example.com", app=console.app.id)
            for one in range(1, phones)
        ]
    )
    said = {"to": "everybody", "recipients": "", "sure": "1"}
    console.post("/compose/send", once=f"all {console.app.id}", **said)
    (sent,) = console.system.reports.newest(console.app)
    deadline = time.monotonic() + 10
    while (funnel := console.system.reports.funnel(sent.id)).displayed < phones:
        assert time.monotonic() < deadline, funnel
        console.get("/activity")
    assert (funnel.accepted, funnel.sent, funnel.displayed) == (phones, phones, phones)


def test_without_a_twin_the_form_works(tmp_path: Path) -> None:
    """Where no twin runs, the page says how to get one and makes no phone."""
    system = System(Settings.load(home=tmp_path))
    app = system.apps.add("TEAM123456", "com.sample.myapp", name="My App")
    with open_console(system) as desk, desk.signed_in() as visitor:
        home = f"/console/apps/{app.id}"
        assert "handbell serve --twin" in visitor.get(f"{home}/compose").text
        answer = visitor.post(f"{home}/phones", {"phone_mail": "test@4d.com"})
        assert "The twin is not running" in answer.text
        told = visitor.post(f"{home}/compose/preview", {**FORM, "to": "everybody"}).json()
        assert told["reaches"] == "Nobody is reached."
    system.database.close()


def test_the_console_needs_nothing_that_only_the_twin_needs() -> None:
    """Where the extra ``twin`` is not installed, the console is there all the same."""
    script = "import sys; sys.modules['h2'] = None; import handbell.server.console"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_twin_that_does_not_answer_is_said_to_be_busy(console: Console) -> None:
    """It runs, so nobody is told to start it; the page asks again by itself."""
    folder = console.system.twin_folder
    address = read_address(folder)
    assert address is not None
    with TCPServer(("127.0.0.1", 0), BaseRequestHandler) as mute:
        Thread(target=mute.serve_forever, args=(0.05,)).start()
        url = f"http://127.0.0.1:{mute.server_address[1]}"
        write_address(folder, replace(address, page_url=url))
        try:
            page = console.get("/compose")
        finally:
            write_address(folder, address)
            mute.shutdown()
    assert "do not answer just now" in page
    assert "handbell serve --twin" not in page
    assert re.search(r'id="virtual-phone"[^>]* data-live="', page)
