"""Virtual phones: what they show, store and drop."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.twin.apns.phone import Push, arrive, deliver_stored
from handbell.twin.phone import MAX_CARDS, Arrival, Phone

NOW = 1_800_000_000.0
PHONE = Phone(
    id="p1",
    name="Anna's phone",
    app="TEAM123456.com.sample.myapp",
    app_name="My App",
    side="production",
    token="ab" * 32,
)
OFF = replace(PHONE, is_on=False)


def push(payload: Any, *, apns_id: str = "id-1", **details: Any) -> Push:
    """Return an accepted push with this payload."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Push(
        apns_id=apns_id,
        token=PHONE.token,
        topic=PHONE.bundle_id,
        payload=body,
        received_at=NOW,
        **{"push_type": "alert", **details},
    )


def alert(text: str, **details: Any) -> Push:
    """Return an accepted push that shows this text."""
    return push({"aps": {"alert": text}}, **details)


def stored(phone: Phone) -> list[Push]:
    """Return what APNs keeps for the phone."""
    return [item for item in phone.stored if isinstance(item, Push)]


def shown(arrival: Arrival) -> list[str]:
    """Return the bodies of the cards on the phone."""
    return [card.body for card in arrival.phone.cards]


def test_a_full_payload_becomes_a_card() -> None:
    """Every part of a notification that a phone can show is on its card."""
    payload = {
        "aps": {
            "alert": {"title": "Order", "subtitle": "No 42", "body": "On its way"},
            "badge": 3,
            "sound": {"name": "bell.caf", "critical": 1, "volume": 1},
            "thread-id": "orders",
            "interruption-level": "time-sensitive",
        },
        "url": "https://example.com/42",
        "data": {"media-url": "https://example.com/42.png"},
    }
    card = arrive(PHONE, push(payload), NOW).card
    assert card is not None
    assert card.to_dict() == {
        "id": "id-1",
        "push_id": "id-1",
        "title": "Order",
        "subtitle": "No 42",
        "body": "On its way",
        "image_url": "https://example.com/42.png",
        "url": "https://example.com/42",
        "sound": "bell.caf",
        "thread_id": "orders",
        "badge": 3,
        "interruption_level": "time-sensitive",
        "shown_at": int(NOW * 1000),
        "opened_at": None,
        "replaced": 0,
        "channel": None,
        "color": None,
        "icon": None,
        "actions": (),
        "count": None,
        "is_sticky": False,
    }


@pytest.mark.parametrize(
    ("aps", "body"),
    [
        ({"alert": "Plain"}, "Plain"),
        ({"alert": {"loc-key": "HELLO"}}, "HELLO"),
        ({"alert": {"loc-key": "%@ ate %@", "loc-args": ["Anna", "pie"]}}, "Anna ate pie"),
        ({"alert": {"loc-key": "%2$@ by %1$@", "loc-args": ["Anna", "pie"]}}, "pie by Anna"),
        ({"alert": {"loc-key": "%@ and %3$@", "loc-args": ["one"]}}, "one and "),
        ({"alert": {"loc-key": "KEY", "body": "instead"}}, "KEY"),
    ],
)
def test_the_body_is_the_text_or_the_key_with_its_arguments(aps: Any, body: str) -> None:
    """A localised alert shows its key, as an app without strings would."""
    assert shown(arrive(PHONE, push({"aps": aps}), NOW)) == [body]


@pytest.mark.parametrize(
    "sent",
    [
        push({"aps": {"badge": 3}}),
        push({"aps": {"content-available": 1}}, push_type="background"),
        push({"aps": {"alert": "x"}}, push_type="background"),
        push({"aps": {"alert": "x"}}, push_type="voip"),
        push(b"not json"),
        push(b"[1]"),
        push(b"\xff\xfe"),
    ],
)
def test_what_has_nothing_to_see_is_silent(sent: Push) -> None:
    """Without an alert, or of a type that goes to the app, a push puts no card on the screen."""
    arrival = arrive(PHONE, sent, NOW)
    assert (arrival.what, arrival.phone.cards) == ("silent", ())


def test_the_badge_is_set_kept_and_cleared() -> None:
    """A badge number counts, its absence changes nothing, and 0 clears it."""
    phone = arrive(PHONE, push({"aps": {"badge": 3}}), NOW).phone
    assert phone.badge == 3
    phone = arrive(phone, alert("x"), NOW).phone
    assert phone.badge == 3
    assert arrive(phone, push({"aps": {"badge": 0}}), NOW).phone.badge is None


def test_a_collapse_id_replaces_and_moves_to_the_top() -> None:
    """The same collapse id is one card, renewed; how often is counted."""
    phone = arrive(PHONE, alert("1:0", collapse_id="score"), NOW).phone
    phone = phone.open_card("score", NOW)
    phone = arrive(phone, alert("other", apns_id="id-2"), NOW).phone
    arrival = arrive(phone, alert("2:0", collapse_id="score", apns_id="id-3"), NOW)
    assert shown(arrival) == ["2:0", "other"]
    assert arrival.card is not None
    assert (arrival.card.id, arrival.card.push_id) == ("score", "id-3")
    assert (arrival.card.replaced, arrival.card.opened_at) == (1, None)


def test_the_same_apns_id_twice_is_two_cards() -> None:
    """Only collapse ids replace: a duplicate has to be seen."""
    phone = arrive(PHONE, alert("x"), NOW).phone
    phone = arrive(phone, alert("x"), NOW).phone
    assert [card.id for card in phone.cards] == ["id-1~2", "id-1"]


def test_a_phone_keeps_the_newest_cards_only() -> None:
    """A long run does not make a phone grow without end."""
    phone = PHONE
    for number in range(MAX_CARDS + 5):
        phone = arrive(phone, alert(str(number), apns_id=f"id-{number}"), NOW).phone
    assert len(phone.cards) == MAX_CARDS
    assert phone.cards[0].body == str(MAX_CARDS + 4)


def test_a_phone_that_is_off_gets_the_newest_when_it_comes_back() -> None:
    """APNs keeps one notification per app for a device that is away, the newest."""
    first = arrive(OFF, alert("old"), NOW)
    second = arrive(first.phone, alert("new"), NOW + 1)
    assert (first.what, second.what) == ("stored", "stored")
    assert second.phone.to_dict()["waiting"] == 1
    assert [item.payload for item in stored(second.phone)] == [alert("new").payload]
    assert shown(deliver_stored(PHONE, stored(second.phone)[0], NOW + 60)) == ["new"]


@pytest.mark.parametrize("expires_at", [0, int(NOW) - 1])
def test_what_may_not_be_stored_is_discarded(expires_at: int) -> None:
    """apns-expiration 0 is one attempt, and the past is past."""
    arrival = arrive(OFF, alert("x", expires_at=expires_at), NOW)
    assert (arrival.what, arrival.phone.stored) == ("discarded", ())


@pytest.mark.parametrize(
    ("expires_at", "back_after", "what"),
    [
        (int(NOW) + 60, 59, "shown"),
        (int(NOW) + 60, 61, "discarded"),
        (None, 30 * 86400, "shown"),
        (None, 30 * 86400 + 1, "discarded"),
    ],
)
def test_stored_pushes_expire(expires_at: int | None, back_after: int, what: str) -> None:
    """A stored push is delivered until its expiration, without one for 30 days."""
    phone = arrive(OFF, alert("x", expires_at=expires_at), NOW).phone
    (kept,) = stored(phone)
    assert deliver_stored(replace(phone, is_on=True), kept, NOW + back_after).what == what


def test_opening_counts_once_and_dismissing_removes() -> None:
    """The first opening sets the time; a card swiped away is gone."""
    phone = arrive(PHONE, alert("x"), NOW).phone
    opened = phone.open_card("id-1", NOW + 1).open_card("id-1", NOW + 2)
    assert opened.cards[0].opened_at == int((NOW + 1) * 1000)
    assert opened.dismiss_card("id-1").cards == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["aps", "alert", "badge", "sound", "loc-key", "loc-args", "data", "url"]
            )
            | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_payload_breaks_a_phone(payload: bytes) -> None:
    """Whatever bytes are accepted, a phone shows them or not, and its JSON can be written."""
    arrival = arrive(PHONE, push(payload), NOW)
    assert arrival.what in {"shown", "silent"}
    json.dumps(arrival.phone.to_dict())
