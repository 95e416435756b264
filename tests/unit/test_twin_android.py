"""The virtual Android phone: what it shows, what FCM stores for it, what it drops."""

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.services.fcm.protocol import COLLAPSE_KEYS_AT_MOST, STORED_AT_MOST
from handbell.twin.fcm.message import RefusalError, check_message, read_body
from handbell.twin.fcm.phone import FcmPush, arrive, deliver_stored, with_badge
from handbell.twin.phone import Channel, Phone

NOW = 1_800_000_000.0
PHONE = Phone(
    id="p1",
    name="Blue phone",
    app="shop",
    app_name="Shop",
    service="fcm",
    side="fcm",
    token="fid:APA91b",
    project="shop-4711",
)
OFF = replace(PHONE, is_on=False)


def push(number: int = 1, data: dict[str, str] | None = None, **android: Any) -> FcmPush:
    """Return an accepted message that shows its number, unless it is of data alone."""
    message: dict[str, Any] = {"token": PHONE.token, "android": android}
    if data is None:
        message["notification"] = {"title": f"Number {number}"}
    else:
        message["data"] = data
    name = f"projects/shop-4711/messages/{number}"
    return FcmPush(name=name, token=PHONE.token, message=message, received_at=NOW)


def names(phone: Phone) -> list[str]:
    """Return the numbers of what is stored for the phone."""
    return [one.name.rpartition("/")[2] for one in phone.stored if isinstance(one, FcmPush)]


def test_android_notification_stands_over_the_common_one() -> None:
    """Texts for Android replace the common ones; what only one of them has is shown too."""
    shown = {"body": "For Android", "image": "https://x.y/z.png", "sticky": True}
    card = arrive(PHONE, push(notification=shown, priority="high"), NOW).card
    assert card is not None
    assert (card.title, card.body, card.is_sticky) == ("Number 1", "For Android", True)
    assert card.image_url == "https://x.y/z.png"


def test_keys_of_an_apps_own_texts_are_filled_in() -> None:
    """A key is shown with its arguments, in the order that it names."""
    shown = {"title_loc_key": "%2$s ate %1$s", "title_loc_args": ["pie", "Anna"]}
    card = arrive(PHONE, push(notification=shown), NOW).card
    assert card is not None
    assert card.title == "Anna ate pie"


def test_one_message_is_stored_for_each_of_four_collapse_keys() -> None:
    """The newest of a key replaces the former; a fifth key drops one of the others."""
    phone = OFF
    for number, key in enumerate(["a", "b", "a", "c", "d"]):
        phone = arrive(phone, push(number, collapse_key=key), NOW).phone
    assert names(phone) == ["1", "2", "3", "4"]
    phone = arrive(phone, push(5, collapse_key="e"), NOW).phone
    assert len(names(phone)) == COLLAPSE_KEYS_AT_MOST


def test_one_too_many_without_a_key_drops_all_of_them() -> None:
    """100 wait; with one more none is left but those with a collapse key."""
    phone = arrive(OFF, push(0, collapse_key="a"), NOW).phone
    for number in range(1, STORED_AT_MOST + 1):
        phone = arrive(phone, push(number), NOW).phone
    assert len(phone.stored) == STORED_AT_MOST + 1
    last = arrive(phone, push(STORED_AT_MOST + 1), NOW)
    assert (last.what, names(last.phone)) == ("discarded", ["0"])


@pytest.mark.parametrize(
    ("ttl", "after", "what"),
    [("60s", 59, "shown"), ("60s", 61, "discarded"), (None, 28 * 86400 - 1, "shown")],
    ids=["in time", "too late", "four weeks"],
)
def test_what_is_stored_expires(ttl: str | None, after: float, what: str) -> None:
    """A message waits as long as its ttl says, four weeks without one."""
    android: dict[str, Any] = {} if ttl is None else {"ttl": ttl}
    phone = arrive(OFF, push(**android), NOW).phone
    (kept,) = phone.stored
    assert deliver_stored(PHONE, kept, NOW + after).what == what


def test_now_or_never_is_not_stored() -> None:
    """A ttl of 0s is for a phone that is on."""
    arrival = arrive(OFF, push(ttl="0s"), NOW)
    assert (arrival.what, arrival.phone.stored) == ("discarded", ())
    assert arrive(PHONE, push(ttl="0s"), NOW).what == "shown"


def test_an_app_with_channels_of_its_own_creates_no_other() -> None:
    """What names none of them goes to the system's own, and the verdict says so."""
    phone = replace(PHONE, channels=(Channel(id="orders"),), has_own_channels=True)
    known = arrive(phone, push(notification={"channel_id": "orders"}), NOW)
    other = arrive(phone, push(notification={"channel_id": "offers"}), NOW)
    assert known.card is not None
    assert other.card is not None
    assert (known.card.channel, other.card.channel) == ("orders", "Miscellaneous")
    assert "offers" in other.why


def test_the_receipt_names_the_delivery_of_the_data() -> None:
    """The id in the data is the one by which the app reports; else it is the message's."""
    assert push(7).push_id == "7"
    assert push(7, {"handbell": "delivery-1"}).push_id == "delivery-1"


def test_the_badge_is_what_waits() -> None:
    """Each notification counts once, or as often as it says; none leaves no badge."""
    phone = arrive(PHONE, push(1, notification={"notification_count": 4}), NOW).phone
    phone = arrive(phone, push(2), NOW).phone
    assert phone.badge == 5
    assert with_badge(phone.dismiss_card("1").dismiss_card("2")).badge is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["message", "token", "data", "android", "notification", "ttl", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_whatever_is_posted_is_read_or_refused(posted: Any) -> None:
    """No JSON breaks the reader: it is a message, or it is refused."""
    with contextlib.suppress(RefusalError):
        check_message(read_body(json.dumps(posted).encode())["message"])
