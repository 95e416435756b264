"""Senders that others wrote judge the twin's push service for browsers."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import requests
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid, b64urlencode
from pywebpush import WebPushException, webpush
from tests.contract.clients.tools import node_program, run

from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

SUBJECT: Final = "mailto:push@example.com"
MOST_BYTES: Final = 3993


def vapid_key() -> Vapid:
    """Return a new key of an application server."""
    key = Vapid()
    key.generate_keys()
    return key


def public(key: Vapid) -> str:
    """Return the key's public half as a page subscribes with it."""
    point = key.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return str(b64urlencode(point))


KEY: Final = vapid_key()
Sent = dict[str, Any]
"""A message that a client is to send: subscription, payload, headers ttl, urgency and topic."""


def by_pywebpush(twin: RunningTwin, key: Vapid, messages: list[Sent]) -> list[Sent]:
    """Send with pywebpush, as its documentation does."""
    session = requests.Session()
    session.verify, session.trust_env = str(twin.ca_file), False
    answers = []
    for sent in messages:
        ttl, *others = sent["headers"].items()
        try:
            answer = webpush(
                sent["subscription"],
                sent["payload"],
                vapid_private_key=key,
                vapid_claims={"sub": SUBJECT},
                ttl=ttl[1],
                headers=dict(others),
                requests_session=session,
            )
        except WebPushException as error:
            answer = error.response
        answers.append(
            {
                "status": answer.status_code,
                "headers": {name.lower(): value for name, value in answer.headers.items()},
                "body": answer.text,
            }
        )
    session.close()
    return answers


def by_node(twin: RunningTwin, key: Vapid, messages: list[Sent]) -> list[Sent]:
    """Send with Node's web-push."""
    secret = key.private_key.private_numbers().private_value.to_bytes(32)
    done = run(
        ["node", node_program("web-push")],
        given=json.dumps(messages),
        env={
            "CLIENT_SUBJECT": SUBJECT,
            "CLIENT_PUBLIC_KEY": public(key),
            "CLIENT_PRIVATE_KEY": b64urlencode(secret),
            "CLIENT_CA_FILE": str(twin.ca_file),
        },
    )
    assert done.returncode == 0, done.stderr
    answers: list[Sent] = json.loads(done.stdout)
    return answers


SENDERS: Final = {"pywebpush": by_pywebpush, "web-push": by_node}


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.judge(name)) for name in SENDERS],
    ids=list(SENDERS),
)
def send(request: pytest.FixtureRequest) -> Any:
    """Return what sends messages: one client after the other."""
    return SENDERS[request.param]


@contextmanager
def running(folder: Path) -> Iterator[RunningTwin]:
    """Run a twin whose browsers subscribe with KEY's public half."""
    from handbell.twin.hooks import TwinHooks  # noqa: PLC0415

    with start_twin(folder, hooks=TwinHooks(web_push_key=lambda _app: public(KEY))) as twin:
        twin.call(lambda state: state.add_app("shop", "Shop"))
        yield twin


def message(browser: Phone, title: str = "Hello", **headers: Any) -> Sent:
    """Return a message to a virtual browser."""
    return {
        "subscription": {"endpoint": browser.token, "keys": json.loads(browser.details or "")},
        "payload": json.dumps({"notification": {"title": title}}),
        "headers": {"ttl": 60} | headers,
    }


def titles(twin: RunningTwin, browser: Phone) -> list[str]:
    """Return what a virtual browser shows, newest first."""
    return [card.title for card in twin.phone(browser.id).cards]


def test_what_is_sent_is_decrypted_and_shown(tmp_path: Path, send: Any) -> None:
    """Up to the largest text; the answer names the message's own resource."""
    with running(tmp_path) as twin:
        browser = twin.add_browser()
        longest = message(browser)
        longest["payload"] = longest["payload"].ljust(MOST_BYTES)
        answers = send(twin, KEY, [message(browser, "Grüße 👋"), longest])
        assert titles(twin, browser) == ["Hello", "Grüße 👋"]
    assert [answer["status"] for answer in answers] == [201, 201]
    assert all(answer["headers"]["location"].startswith("https://") for answer in answers)


def test_a_closed_browser_gets_the_latest_of_a_topic(tmp_path: Path, send: Any) -> None:
    """What waits is delivered when it is opened; TTL 0 does not wait, a long TTL is shortened."""
    with running(tmp_path) as twin:
        browser = twin.add_browser(is_on=False)
        answers = send(
            twin,
            KEY,
            [
                message(browser, "first", topic="news", urgency="low"),
                message(browser, "lost", ttl=0),
                message(browser, "second", topic="news", urgency="high"),
                message(browser, "other", ttl=99_999_999),
            ],
        )
        twin.switch(browser, is_on=True)
        assert titles(twin, browser) == ["other", "second"]
    assert [answer["status"] for answer in answers] == [201] * 4
    assert answers[3]["headers"]["ttl"] == "2592000"


REFUSED: Final[Mapping[str, int]] = {"ended": 410, "unknown": 404, "another key": 403}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_refused_is_told(tmp_path: Path, send: Any, why: str) -> None:
    """The client reads the status, and autopush's words for it."""
    with running(tmp_path) as twin:
        browser = twin.add_browser()
        sent = message(browser)
        if why == "ended":
            twin.remove_phone(browser)
        if why == "unknown":
            sent["subscription"]["endpoint"] += "x"
        (answer,) = send(twin, vapid_key() if why == "another key" else KEY, [sent])
    assert (answer["status"], json.loads(answer["body"])["code"]) == (REFUSED[why], REFUSED[why])


@pytest.mark.parametrize("status", [429, 503])
def test_a_fault_reaches_the_sender(tmp_path: Path, send: Any, status: int) -> None:
    """The status and Retry-After of an injected fault are the client's."""
    with running(tmp_path) as twin:
        browser = twin.add_browser()
        twin.add_fault("answer", side="webpush", status=status, retry_after=7)
        first, second = send(twin, KEY, [message(browser), message(browser)])
    assert (first["status"], first["headers"]["retry-after"]) == (status, "7")
    assert second["status"] == 201
