"""The front door to a send server says and does what the local one does."""

import asyncio
import contextlib
import math
import socket
import subprocess
import sys
import threading
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest
from tests.conftest import Stage
from tests.fronts import Front, front
from tests.serving import Server, server

from handbell import AsyncPushNotification, PushNotification, Sessions, errors
from handbell.creation.template import Template
from handbell.delivery.delivery import Delivery
from handbell.delivery.ledger.why import Story
from handbell.delivery.response import Response
from handbell.errors import (
    AppForbiddenError,
    HandbellError,
    IdempotencyError,
    NotificationError,
    PayloadTooLargeError,
    RateLimitedError,
    RecipientsError,
    RegistryError,
    SettingsError,
    TemplateError,
    UnauthorizedError,
    UnavailableError,
    UnknownAppError,
    UnknownNotificationError,
    UnknownTemplateError,
)
from handbell.remote.answers import read_error, read_story
from handbell.remote.client import RemoteApp
from handbell.server.api.representation import represent
from handbell.server.fix_calls import as_call
from handbell.server.problems import members_of

from .test_service_sessions import subscription

__all__ = ["front", "server"]

FIRST, SECOND, NOBODY = "test@4d.com", "user1@example.com", "nobody@example.com"
HELLO = {"title": "Hello", "body": "How are you?"}


def _facts(delivery: Delivery) -> dict[str, Any]:
    """Return what has to be equal on both ways, of two sends alike."""
    told = {item.name: getattr(delivery, item.name) for item in fields(Delivery)}
    dated = {name: value is not None for name, value in told.items() if name.endswith("_at")}
    return {**told, **dated, "notification_id": "", "unique_id": ""}


def test_the_same_scenario_passes_here_and_there(front: Front, stage: Stage) -> None:
    """Send, open, cancel, replace, repeat: the same answers, values and errors."""
    phone = stage.add_phone(FIRST)
    stage.add_phone(SECOND)
    push = front(PushNotification)
    assert (push.auth.team_id, push.auth.bundle_id) == ("TEAM123456", "com.sample.myapp")

    push.recipients = [FIRST, NOBODY]
    response = push.send({**HELLO, "collapse_id": "c"}, idempotency_key="once")
    assert (response.success, response.reached, response.total) == (True, 1, 1)
    assert response.errors == ()
    assert response.warnings[0].startswith(NOBODY)
    (delivery,) = response.deliveries
    (stored,) = stage.system.ledger.deliveries_of(response.notification_id or "")
    assert delivery == stored
    assert delivery.apns_id in stage.twin.accepted_of(phone.token)

    again = push.send({**HELLO, "collapse_id": "c"}, idempotency_key="once")
    assert again.notification_id == response.notification_id
    with pytest.raises(IdempotencyError):
        push.send({"title": "Other"}, idempotency_key="once")

    replaced = push.replace(response.notification_id, {"title": "Now"})
    assert (replaced.success, replaced.reached) == (True, 1)
    opened = push.open(("Employee", 42), HELLO, SECOND)
    (told,) = opened.deliveries
    content = stage.system.reports.funnel(opened.notification_id).content
    assert content["user_info"]["entity"] == {"primaryKey": 42}
    assert told.mail == SECOND

    later = push.send(HELLO, FIRST, send_at="2999-01-01T00:00Z", urgency="urgent")
    assert [one.state for one in later.deliveries] == ["held"]
    assert push.cancel(later.notification_id) == 1
    assert push.send_all(HELLO).reached == 2

    failed = push.send(HELLO, "00" * 32)
    assert (failed.success, failed.reached, len(failed.errors)) == (False, 0, 1)
    (refused,) = failed.deliveries
    assert _facts(refused)["reason"] == "BadDeviceToken"


def test_the_same_errors_are_raised_here_and_there(front: Front) -> None:
    """Of the same class, with words and fix, whoever found the fault."""
    push = front(PushNotification)
    with pytest.raises(NotificationError, match="titel"):
        push.send({"titel": "x"}, FIRST)
    with pytest.raises(RecipientsError):
        push.send(HELLO)
    with pytest.raises(RecipientsError):
        push.send(HELLO, "somebody")
    with pytest.raises(PayloadTooLargeError) as caught:
        push.send({"title": "x" * 5000}, FIRST)
    assert caught.value.size > caught.value.limit == 4096
    assert caught.value.fix
    with pytest.raises(UnknownNotificationError):
        push.cancel("0" * 15)
    with pytest.raises(NotificationError, match="urgency"):
        push.send(HELLO, FIRST, urgency="soon")


def test_templates_are_sent_here_and_there(front: Front, stage: Stage) -> None:
    """By name, with variables, each with their own, and with a target to open."""
    for mail in (FIRST, SECOND):
        stage.add_phone(mail)
    template = Template.read({"name": "welcome", "notification": {"title": "Hello {{ name }}"}})
    stage.system.templates.put(stage.app, template)
    push = front(PushNotification)

    def title(response: Response) -> str:
        funnel = stage.system.reports.funnel(response.notification_id or "")
        return str(funnel.content["title"])

    ada = {"template": "welcome", "variables": {"name": "Ada"}}
    assert title(push.send(ada, FIRST)) == "Hello Ada"
    opened = push.open("Employee", {**ada, "user_info": {"a": 1}}, FIRST)
    info = stage.system.reports.funnel(opened.notification_id).content["user_info"]
    assert info == {"a": 1, "dataClass": "Employee"}
    each = push.send_each(
        "welcome", {FIRST: {"name": "A"}, SECOND: {"name": "B"}, NOBODY: {"x": 1}}
    )
    assert [title(each[mail]) for mail in (FIRST, SECOND)] == ["Hello A", "Hello B"]
    assert [each[mail].success for mail in each] == [True, True, False]
    assert each[NOBODY].errors
    with pytest.raises(HandbellError) as caught:
        push.send({"template": "unknown", "variables": {}}, FIRST)
    assert caught.value.code == "template-unknown"


def test_the_sessions_are_the_same_here_and_there(front: Front, stage: Stage) -> None:
    """Tokens, mails, sessions and the story of one person."""
    phone = stage.add_phone(FIRST)
    front(PushNotification).send(HELLO, FIRST)
    stage.register(FIRST, "ab" * 32, "development")
    stage.register(SECOND, "cd" * 32)
    stage.system.registry.close(stage.session(SECOND), "gone")
    sessions = front(Sessions)
    assert sessions.all_device_tokens() == sorted([phone.token, "ab" * 32])
    assert sessions.all_mail_addresses() == [FIRST, SECOND]
    stored = stage.system.registry.sessions_of(stage.app, FIRST)
    found = sessions.sessions_of(FIRST)
    assert [(one.id, one.token, one.registered_at) for one in found] == [
        (one.id, one.token, one.registered_at) for one in stored
    ]
    story = sessions.why(FIRST)
    assert _as_told(story) == _as_told(stage.system.why(stage.app, FIRST))
    assert str(story).startswith(story.answer)
    assert not sessions.why(NOBODY).is_sent


def test_devices_of_every_service_are_registered_here_and_there(front: Front, stage: Stage) -> None:
    """A token of FCM, and a browser's subscription, of which no key is told again."""
    endpoint = "https://updates.push.services.mozilla.com/wpush/v2/1"
    sessions = front(Sessions)
    phone = sessions.register(FIRST, "x" * 152, platform="android", device_id="one")
    browser = sessions.register(FIRST, subscription(endpoint))
    other = sessions.register(SECOND, "y" * 152, service="fcm", platform="ios")
    services = [(one.service, one.kind, one.platform) for one in (phone, browser, other)]
    assert services == [
        ("fcm", "device", "android"),
        ("webpush", "subscription", "web"),
        ("fcm", "device", "ios"),
    ]
    assert (phone.device_id, browser.address) == ("one", endpoint)
    stored = stage.system.registry.session(browser.id)
    assert stored.details is not None
    assert sessions.all_addresses() == sorted([endpoint, "x" * 152, "y" * 152])
    assert sessions.all_device_tokens() == ["x" * 152, "y" * 152]
    with pytest.raises(RegistryError, match="keys"):
        sessions.register(FIRST, {"endpoint": endpoint})
    with pytest.raises(RegistryError, match="not a push service"):
        sessions.register(FIRST, "x" * 152, service="pigeon")


def test_what_no_address_or_json_can_carry_is_the_same_here_and_there(
    front: Front, stage: Stage
) -> None:
    """Slashes, dates, no number, empty texts: values where there are some, else the same errors."""
    stage.register("a/b@example.com", "ab" * 32)
    story = front(Sessions).why("a/b@example.com")
    assert (story.mail, len(story.sessions)) == ("a/b@example.com", 1)
    push = front(PushNotification)
    for wrong in ("a/b", "..", ""):
        with pytest.raises(UnknownNotificationError, match="has no notification"):
            push.cancel(wrong)
    for when in (math.nan, date(2999, 1, 1), True):
        with pytest.raises(NotificationError, match="send_at"):
            push.send(HELLO, FIRST, send_at=when)
    with pytest.raises(NotificationError, match="idempotency key is empty"):
        push.send(HELLO, FIRST, idempotency_key="")
    template = Template.read({"name": "welcome", "notification": {"title": "Hi {{ name }}"}})
    stage.system.templates.put(stage.app, template)
    use = {"template": "welcome", "variables": {"name": "A"}}
    until = datetime(2999, 1, 1, tzinfo=UTC)
    sent = push.send({**use, "expires_at": until}, FIRST)
    content = stage.system.reports.funnel(sent.notification_id).content
    assert content["expires_at"] == until.timestamp()
    with pytest.raises(NotificationError, match=r"variables\.name"):
        push.send({"template": "welcome", "variables": {"name": until}}, FIRST)


def test_each_of_very_many_gets_an_answer_here_and_there(front: Front, stage: Stage) -> None:
    """More than one call takes; a wrong one costs itself alone, a template that is none all."""
    template = Template.read({"name": "welcome", "notification": {"title": "Hi {{ name }}"}})
    stage.system.templates.put(stage.app, template)
    push = front(PushNotification)
    variables: dict[str, Any] = {
        f"test{number}@example.com": {"name": "A"} for number in range(401)
    }
    answers = push.send_each("welcome", {**variables, FIRST: {"name": object()}, SECOND: 5})
    assert list(answers) == [*variables, FIRST, SECOND]
    assert sum(bool(one.errors) for one in answers.values()) == 2
    assert "JSON" in answers[FIRST].errors[0]
    assert "the number 5" in answers[SECOND].errors[0]
    for nobody in ({}, {FIRST: {"name": "A"}}):
        with pytest.raises(UnknownTemplateError):
            push.send_each("unknown", nobody)
    with pytest.raises(TemplateError, match="a list"):
        push.send_each("welcome", [FIRST])


def test_an_app_whose_name_has_a_slash_is_found(server: Server, stage: Stage) -> None:
    """By its name, and one that is not there is an unknown app."""
    named = stage.system.apps.add("TEAM123456", "com.sample.named", name="Shop / Test")
    key = server.key("send")
    push = PushNotification("Shop / Test", url=server.url, api_key=key)
    assert push.auth.bundle_id == named.bundle_id
    push.close()
    for unknown in ("a/b", ".."):
        with pytest.raises(UnknownAppError, match="There is no app"):
            PushNotification(unknown, url=server.url, api_key=key)


def test_a_key_that_was_read_with_the_end_of_its_line_opens(server: Server, stage: Stage) -> None:
    """As it comes out of a file."""
    push = PushNotification(stage.app.id, url=server.url, api_key=f"{server.key('send')}\n")
    assert push.auth.team_id == stage.app.team_id
    push.close()


@pytest.mark.parametrize("wrong", ["hbk_a\nb", "hbk_é", "hbk_a b", "hbk_\x00"])
def test_a_key_that_cannot_be_one_is_not_shown(wrong: str) -> None:
    """No header takes it, and no error repeats it."""
    with pytest.raises(SettingsError) as caught:
        PushNotification(url="http://127.0.0.1:9", api_key=wrong)
    assert "hbk_" not in caught.value.what
    assert wrong not in str(caught.value)


def test_callers_that_are_asynchronous_have_the_same(server: Server, stage: Stage) -> None:
    """Many at once over shared connections; the connections close with the block."""
    stage.add_phone(FIRST)

    async def run() -> list[Any]:
        key = server.key("send")
        async with AsyncPushNotification(stage.app.id, url=server.url, api_key=key) as push:
            with pytest.raises(SettingsError, match="webhook"):
                await push.add_hook(print)
            return await asyncio.gather(*(push.send(HELLO, FIRST) for _ in range(10)))

    responses = asyncio.run(run())
    assert all(response.success for response in responses)
    assert len({response.notification_id for response in responses}) == 10
    assert [len(response.deliveries) for response in responses] == [1] * 10


def test_what_the_server_refuses_is_raised_at_once(server: Server, stage: Stage) -> None:
    """A wrong key, a key of another app, an unknown app: when the object is made."""
    second = stage.system.apps.add("TEAM654321", "com.sample.second")
    with pytest.raises(UnauthorizedError):
        PushNotification(url=server.url, api_key="hbk_00000000_" + "0" * 32)
    with pytest.raises(AppForbiddenError):
        PushNotification(stage.app.id, url=server.url, api_key=server.key("send", app=second))
    with pytest.raises(UnknownAppError):
        PushNotification("com.unknown", url=server.url, api_key=server.key("send"))
    with pytest.raises(errors.AmbiguousAppError) as caught:
        PushNotification(url=server.url, api_key=server.key("send"))
    assert len(caught.value.candidates) == 2


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"api_key": "hbk_x"}, "without a server"),
        ({"url": "http://127.0.0.1:9"}, "API key"),
        *(
            ({"url": url, "api_key": "hbk_x"}, "address")
            for url in (
                "push.example.com",
                "http:///",
                "http://[::1",
                "http://a b",
                "http://a:99999",
            )
        ),
        (
            {
                "app": {"bundle_id": "a.b", "team_id": "TEAM123456", "auth_key": "k"},
                "url": "http://127.0.0.1:9",
                "api_key": "hbk_x",
            },
            "auth object",
        ),
    ],
)
def test_what_cannot_be_reached_by_its_settings(how: dict[str, Any], words: str) -> None:
    """What is missing or does not go together is said before anything is asked."""
    with pytest.raises(SettingsError, match=words):
        PushNotification(**how)


class Flaky:
    """A relay to a server that, once told, loses answers after it has passed the requests on.

    ``passes`` answers come through before that.
    """

    def __init__(self, server: Server) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.passes = 0
        self.losses = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target, timeout=10)
                for pump in (self._ask, self._answer):
                    self._threads.append(threading.Thread(target=pump, args=(near, far)))
                    self._threads[-1].start()

    def _ask(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while request := near.recv(65536):
                far.sendall(request)
            far.shutdown(socket.SHUT_RDWR)

    def _answer(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError), near, far:
            while answer := far.recv(65536):
                if self.passes:
                    self.passes -= 1
                elif self.losses:
                    self.losses -= 1
                    near.shutdown(socket.SHUT_RDWR)
                    return
                near.sendall(answer)

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


def test_a_lost_answer_is_asked_for_again_and_nobody_is_notified_twice(
    server: Server, stage: Stage
) -> None:
    """The request had arrived: the repeat under the client's key gets the first one's outcome."""
    phone = stage.add_phone(FIRST)
    flaky = Flaky(server)

    async def run() -> Any:
        remote = RemoteApp(flaky.url, server.key("send"), stage.app.id)
        await remote.find()
        flaky.losses = 1
        try:
            return await remote.send({"notification": HELLO, "recipients": FIRST})
        finally:
            await remote.close()

    response = asyncio.run(run())
    flaky.close()
    assert response.success
    assert flaky.losses == 0
    assert len(stage.twin.accepted_of(phone.token)) == 1
    assert len(stage.system.reports.newest()) == 1


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_whoever_does_not_wait_gets_the_id_though_the_server_goes_away(
    server: Server, stage: Stage, seconds: float
) -> None:
    """What was accepted is told, though nothing can be asked about it any more."""
    stage.add_phone(FIRST)
    flaky = Flaky(server)

    async def run() -> Any:
        remote = RemoteApp(flaky.url, server.key("send"), stage.app.id, pauses=())
        await remote.find()
        flaky.passes, flaky.losses = 1, 100
        try:
            entry = {"notification": HELLO, "recipients": FIRST}
            return await remote.send(entry, timeout=seconds)
        finally:
            await remote.close()

    response = asyncio.run(run())
    flaky.close()
    assert (response.is_running, response.success, response.errors) == (True, False, ())
    assert response.notification_id == stage.system.reports.newest()[0].id


def test_a_server_that_is_not_there_is_said_so() -> None:
    """After some attempts, with the address."""
    remote = RemoteApp("http://127.0.0.1:9", "hbk_x", pauses=(0.0, 0.0))
    with pytest.raises(UnavailableError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        asyncio.run(remote.find())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_host_that_is_unknown_is_not_asked_for_again(scheme: str) -> None:
    """Its name leads nowhere, whatever the pauses between attempts are."""
    remote = RemoteApp(f"{scheme}://nowhere.invalid", "hbk_x", pauses=(3600.0,))
    with pytest.raises(UnavailableError, match=r"no host of that name|could not be looked up"):
        asyncio.run(asyncio.wait_for(remote.find(), 20))


WITHOUT_CLOSING = {
    "PushNotification": """
push = PushNotification(APP, url=URL, api_key=KEY)
push.send({"title": "Hello"}, "nobody@example.com")
""",
    "dropped": """
for _ in range(2):
    PushNotification(APP, url=URL, api_key=KEY).send({"title": "Hello"}, "nobody@example.com")
""",
    "AsyncPushNotification": """
async def main():
    push = AsyncPushNotification(APP, url=URL, api_key=KEY)
    await push.send({"title": "Hello"}, "nobody@example.com")
asyncio.run(main())
""",
    "two loops": """
push = AsyncPushNotification(APP, url=URL, api_key=KEY)
for _ in range(2):
    asyncio.run(push.send({"title": "Hello"}, "nobody@example.com"))
""",
    "Sessions": """
print(Sessions(APP, url=URL, api_key=KEY).all_device_tokens())
""",
}


@pytest.mark.parametrize("way", WITHOUT_CLOSING)
def test_who_closes_nothing_reads_no_warning(server: Server, stage: Stage, way: str) -> None:
    """A program that ends leaves no connection to a send server open."""
    script = (
        "import asyncio\nfrom handbell import AsyncPushNotification, PushNotification, Sessions\n"
        f"APP, URL, KEY = {stage.app.id!r}, {server.url!r}, {server.key()!r}\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", script + WITHOUT_CLOSING[way]],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_every_error_comes_back_as_its_own_class() -> None:
    """What the server raises is what the client raises, member by member."""
    known: list[type[HandbellError]] = [HandbellError]
    for kind in known:
        known += kind.__subclasses__()
    for kind in {one.code: one for one in reversed(known)}.values():
        error = kind.__new__(kind)
        HandbellError.__init__(error, "What", fix="Fix")
        problem = {"code": kind.code, "detail": error.what, "fix": error.fix}
        found = read_error(problem)
        assert type(found) is kind
        assert (str(found), found.what, found.fix) == (str(error), "What.", "Fix.")
    large = PayloadTooLargeError("Large", size=5000, limit=4096)
    back = read_error(members_of(large))
    assert isinstance(back, PayloadTooLargeError)
    assert (back.size, back.limit) == (5000, 4096)
    said = {"code": "rate-limited", "detail": "x", "fix": ""}
    limited = read_error(said, {"retry-after": "7"})
    assert isinstance(limited, RateLimitedError)
    assert limited.retry_after == 7
    assert read_error({"code": "of-a-later-version", "detail": "x"}).what == "x."


def _as_told(story: Story) -> Story:
    """Return a story as a server tells it: without the numbers of the registry's users."""
    told = (replace(one, session=replace(one.session, user_id=0)) for one in story.sessions)
    return replace(story, sessions=tuple(told))


def test_a_story_survives_its_way(stage: Stage) -> None:
    """All facts of a story are the same after the way over HTTP."""
    stage.add_phone(FIRST)
    stage.register(SECOND, "cd" * 32)
    asyncio.run(stage.send([FIRST, SECOND]))
    for mail in (FIRST, SECOND, NOBODY):
        story = stage.system.why(stage.app, mail)
        told = _as_told(story)
        # What to do is worded for whom the server tells it.
        assert read_story(represent(story)) == replace(told, to_do=tuple(map(as_call, told.to_do)))


def test_the_front_door_loads_no_http_client_for_a_local_send() -> None:
    """``import handbell`` loads no httpx."""
    script = "import sys, handbell; print('httpx' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
    assert httpx.__version__
