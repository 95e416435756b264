"""The direct path end to end: a real database, a real TLS HTTP/2 socket, the twin's rules."""

import asyncio
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from bench.chaos import fill
from tests.reported import report

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.events import DeliveryFailed, Event, SessionClosed
from handbell.delivery.webhooks.store import WebhookStore
from handbell.delivery.work.app_states import PAGE
from handbell.errors import MissingCredentialError, NotificationError, TwinError
from handbell.registry.session import LOGGED_OUT
from handbell.services.apns.credential import read_certificate

if TYPE_CHECKING:
    from tests.conftest import Stage

pytestmark = pytest.mark.databases

MAIL = "test@4d.com"


def test_a_person_is_reached_on_every_device(stage: "Stage") -> None:
    """One mail reaches all of that person's active sessions, each with its own apns-id."""
    phones = [stage.add_phone(MAIL), stage.add_phone(MAIL, side="development")]
    response = asyncio.run(stage.send(MAIL, body="There"))
    assert (response.success, response.warnings, response.errors) == (True, (), ())
    shown = {stage.twin.phone(phone.id).cards[0].push_id for phone in phones}
    assert shown == {delivery.apns_id for delivery in response.deliveries}
    assert {delivery.state for delivery in response.deliveries} == {"sent"}


def test_an_outcome_is_stored_with_times_and_attempts(stage: "Stage") -> None:
    """The ledger knows when a delivery was made, sent and ended, and at which attempt."""
    stage.add_phone(MAIL, side="development")
    delivery = stage.delivery(asyncio.run(stage.send(MAIL)))
    assert delivery.sent_at is not None
    assert delivery.created_at <= delivery.sent_at == delivery.finished_at
    assert (delivery.attempts, delivery.status, delivery.reason) == (1, 200, None)
    assert delivery.unique_id is not None
    assert stage.session(MAIL).accepted_at is not None


@pytest.mark.parametrize(
    ("side", "believed"), [("development", "production"), ("production", "development")]
)
def test_a_token_of_the_other_environment_is_found_and_remembered(
    stage: "Stage", side: str, believed: str
) -> None:
    """BadDeviceToken asks the other environment once; what accepts is remembered on the session."""
    phone = stage.add_phone(MAIL, side=side, registered=believed)
    delivery = stage.delivery(asyncio.run(stage.send(MAIL)))
    assert (delivery.state, delivery.environment, delivery.attempts) == ("sent", side, 2)
    assert stage.session(MAIL).environment == side
    assert len(stage.twin.phone(phone.id).cards) == 1
    again = stage.delivery(asyncio.run(stage.send(MAIL)))
    assert again.attempts == 1


def test_a_token_that_both_refuse_is_put_in_quarantine(stage: "Stage") -> None:
    """Only when both environments refused the token is its session set aside, and it is kept."""
    stage.add_phone("first@example.com")
    assert asyncio.run(stage.send("first@example.com")).success
    stage.register(MAIL, "ab" * 32)
    response = asyncio.run(stage.send(MAIL))
    assert not response.success
    assert "BadDeviceToken" in response.errors[0]
    assert (stage.session(MAIL).status, stage.session(MAIL).token) == ("quarantined", "ab" * 32)
    later = asyncio.run(stage.send(MAIL))
    assert "quarantine" in later.warnings[0]
    assert later.total == 0


def test_a_token_is_not_judged_before_anything_was_accepted(stage: "Stage") -> None:
    """Until the configuration has proven itself a refusal may be its fault, and costs nobody."""
    stage.register(MAIL, "ab" * 32)
    response = asyncio.run(stage.send(MAIL))
    assert "BadDeviceToken" in response.errors[0]
    assert stage.session(MAIL).status == "active"


def test_most_tokens_refused_stops_the_app_and_keeps_every_token(stage: "Stage") -> None:
    """When most tokens are refused the rest is not sent, and no session is set aside or closed."""
    mails = [f"user{number}@example.com" for number in range(80)]
    for number, mail in enumerate(mails):
        stage.register(mail, f"{number:064x}")
    response = asyncio.run(stage.send(mails))
    reasons = {delivery.reason for delivery in response.deliveries}
    assert not response.success
    assert reasons == {"BadDeviceToken", "CircuitOpen"}
    assert {stage.session(mail).status for mail in mails} == {"active"}
    assert len({request.token for request in stage.twin.requests}) < len(mails)


def test_a_dead_token_among_many_is_closed_and_disturbs_nobody(stage: "Stage") -> None:
    """A 410 closes that session with Apple's reason, as a warning; the others are reached."""
    phones = [stage.add_phone(f"user{number}@example.com") for number in range(5)]
    time.sleep(0.01)
    stage.twin.remove_phone(phones[2])
    response = asyncio.run(stage.send([phone.mail for phone in phones]))
    assert response.success
    assert response.reached == 4
    assert "Unregistered" in response.warnings[0]
    closed = stage.session("user2@example.com")
    assert (closed.status, closed.reason) == ("closed", "Unregistered")


def test_a_device_that_came_back_keeps_its_session(stage: "Stage") -> None:
    """A 410 from before the last registration closes nothing, and no event says that it did."""
    events: list[Event] = []
    stage.system.hooks.add(events.append)
    phone = stage.add_phone(MAIL)
    long_ago = int((time.time() - 3600) * 1000)
    stage.twin.add_fault(
        "answer", token=phone.token, status=410, reason="Unregistered", timestamp=long_ago
    )
    asyncio.run(stage.send(MAIL))
    assert stage.session(MAIL).status == "active"
    assert any(isinstance(event, DeliveryFailed) for event in events)
    assert not any(isinstance(event, SessionClosed) for event in events)


def test_an_expired_provider_token_is_renewed_on_a_new_connection(stage: "Stage") -> None:
    """ExpiredProviderToken is mended on the spot: the notification still arrives, once."""
    phone = stage.add_phone(MAIL)
    stage.twin.add_fault("answer", status=403, reason="ExpiredProviderToken")
    response = asyncio.run(stage.send(MAIL))
    assert response.success
    assert len(stage.twin.phone(phone.id).cards) == 1


def test_a_refused_key_stops_the_send_and_says_what_to_mend(stage: "Stage") -> None:
    """InvalidProviderToken is an error with its fix; no session suffers from it."""
    stage.add_phone(MAIL)
    stage.twin.add_fault("answer", status=403, reason="InvalidProviderToken", count=10)
    response = asyncio.run(stage.send(MAIL))
    assert "InvalidProviderToken" in response.errors[0]
    assert "handbell doctor" in response.errors[0]
    assert stage.session(MAIL).status == "active"


def test_an_answer_that_never_comes_is_told_and_tried_again(stage: "Stage") -> None:
    """A lost connection is no failure yet: the delivery waits, and the response says so."""
    stage.add_phone(MAIL)
    stage.twin.add_fault("cut", count=10)
    response = asyncio.run(stage.send(MAIL))
    delivery = stage.delivery(response)
    assert (response.success, response.errors) == (False, ())
    assert "The next attempt is due at" in response.warnings[0]
    assert delivery.state == "held"
    assert delivery.due_at is not None


def test_a_pending_session_is_never_pushed_to(stage: "Stage") -> None:
    """A pending session gets nothing by mail, by its token or by a send to all."""
    phone = stage.twin.add_phone(mail=MAIL, app=stage.app.id)
    stage.system.registry.register(stage.app, MAIL, phone.token, status="pending")
    by_mail = asyncio.run(stage.send(MAIL))
    by_token = asyncio.run(stage.send(phone.token))
    to_all = asyncio.run(stage.send({"everybody": True}))
    assert "pending" in by_mail.warnings[0]
    assert "pending" in by_token.warnings[0]
    assert (by_mail.total, by_token.total, to_all.total) == (0, 0, 0)
    assert stage.twin.requests == []


def test_who_has_logged_out_or_given_the_device_away_is_told_as_such(stage: "Stage") -> None:
    """The warning says in words why the last session is closed, not in the registry's."""
    phone = stage.add_phone(MAIL)
    stage.system.registry.close(stage.session(MAIL), LOGGED_OUT)
    (warning,) = asyncio.run(stage.send(MAIL)).warnings
    assert warning == f"{MAIL} was not reached: their last session is closed (it was logged out)."
    stage.register(MAIL, phone.token)
    stage.register("next@example.com", phone.token)
    (warning,) = asyncio.run(stage.send(MAIL)).warnings
    assert "registered for somebody else" in warning


def test_nothing_of_a_former_user_arrives_after_an_account_switch(stage: "Stage") -> None:
    """A token that moves to another user is not reached through the former one."""
    phone = stage.add_phone("former@example.com")
    stage.register("next@example.com", phone.token)
    response = asyncio.run(stage.send("former@example.com"))
    assert response.total == 0
    assert stage.twin.phone(phone.id).cards == ()


def test_everybody_is_reached_over_several_pages(stage: "Stage") -> None:
    """A send to all goes through the sessions in pages and reaches each of them once."""
    number = PAGE + 20
    phones = stage.twin.call(lambda twin: [twin.add_phone(app=stage.app.id) for _ in range(number)])
    fill(stage.system.database, stage.app.row or 0, phones)
    response = asyncio.run(stage.send({"everybody": True}))
    assert (response.reached, response.total) == (number, number)
    assert stage.twin.accepted == number


def test_without_a_key_nothing_is_stored(stage: "Stage") -> None:
    """An app without a key raises before anything is stored."""
    (stored,) = stage.system.apps.credentials(stage.app)
    stage.add_phone(MAIL)
    stage.system.apps.remove_credential(stage.app, stored.key_id)
    with pytest.raises(MissingCredentialError, match="handbell key add"):
        asyncio.run(stage.send(MAIL))


def test_without_a_twin_a_session_on_it_raises(stage: "Stage") -> None:
    """A session in the environment of a twin that is not running says how to start one."""
    stage.register(MAIL, "ab" * 32, "twin")
    with pytest.raises(TwinError, match="handbell twin"):
        asyncio.run(stage.send(MAIL))


def test_a_notification_that_cannot_be_sent_is_refused_first(stage: "Stage") -> None:
    """A contradiction is raised before anything goes out or is stored."""
    stage.add_phone(MAIL)
    with pytest.raises(NotificationError):
        asyncio.run(stage.send(MAIL, body="x" * 5000))
    assert stage.twin.requests == []


def test_reports_of_a_phone_reach_the_ledger(stage: "Stage") -> None:
    """A report names its delivery by the apns-id; the first one counts, foreign ones do not."""
    stage.add_phone(MAIL)
    response = asyncio.run(stage.send(MAIL))
    apns_id = stage.delivery(response).apns_id
    assert report(stage.system, "displayed", apns_id)
    first = stage.delivery(response).displayed_at
    assert report(stage.system, "displayed", apns_id)
    assert report(stage.system, "opened", apns_id)
    delivery = stage.delivery(response)
    assert delivery.displayed_at == first is not None
    assert delivery.opened_at is not None
    assert not report(stage.system, "opened", "00000000-0000-4000-8000-000000000000")


def test_a_webhook_is_told_of_what_failed(stage: "Stage") -> None:
    """The app's own back end hears, signed, of a failed delivery and of the closed session."""
    calls: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            calls.append({**json.loads(self.rfile.read(length)), "by": dict(self.headers)})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    async def send() -> None:
        engine = stage.system.engine
        await engine.send(stage.app, Notification(title="Hello"), Recipients.read(MAIL))
        for _ in range(100):
            if calls:
                break
            await asyncio.sleep(0.05)
        await stage.system.close_gateways()

    phone = stage.add_phone(MAIL)
    time.sleep(0.01)
    stage.twin.remove_phone(phone.id)
    stage.system.settings = stage.system.settings.model_copy(update={"webhook_allow_private": True})
    store = WebhookStore(stage.system.database, stage.system.vault, allow_private=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        store.add(stage.app, f"http://127.0.0.1:{server.server_port}/")
        asyncio.run(send())
        server.shutdown()
    told = json.dumps(calls)
    assert "delivery.failed" in told
    assert "session.closed" in told
    assert "webhook-signature" in told.lower()


def test_a_certificate_serves_instead_of_a_key(stage: "Stage", tmp_path: Path) -> None:
    """An app whose credential is a push certificate sends over a connection that presents it."""
    file = tmp_path / "push.pem"
    file.write_bytes(stage.twin.issue_client_certificate([stage.app.apple.bundle_id]))
    (key,) = stage.system.apps.credentials(stage.app)
    stage.system.apps.remove_credential(stage.app, key.key_id)
    stage.system.apps.add_credential(stage.app, read_certificate(file))
    phone = stage.add_phone(MAIL)
    assert asyncio.run(stage.send(MAIL)).success
    assert "authorization" not in stage.twin.requests[0].headers
    assert len(stage.twin.phone(phone.id).cards) == 1
