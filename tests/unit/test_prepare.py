"""What is taken to be certain about a notification is."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.delivery.accept.prepare import is_ordinary
from handbell.delivery.accept.store import Order
from handbell.delivery.work.composed import is_loud
from handbell.errors import NotificationError
from handbell.gateways.apns.compose import compose
from handbell.gateways.wordings import compose_each

_TEXT = st.text(st.characters(codec="utf-8"), max_size=400)
_INFO = st.dictionaries(_TEXT, _TEXT | st.integers(-9, 1 << 60) | st.floats(allow_nan=False))
_SOUND = _TEXT | st.just({"critical": True})
_MEMBERS = {
    **dict.fromkeys(("title", "subtitle", "body", "url", "image_url"), _TEXT),
    **dict.fromkeys(("title_loc_key", "subtitle_loc_key", "loc_key"), _TEXT),
    **dict.fromkeys(("title_loc_args", "loc_args"), st.lists(_TEXT, max_size=3)),
    "sound": _SOUND,
}
_APP = App(team_id="TEAM123456", bundle_id="a" * 155)


def _order(notification: Notification) -> Order:
    return Order(app=_APP, content=notification, recipients={})


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **_MEMBERS,
            **dict.fromkeys(("thread_id", "category", "launch_image", "filter_criteria"), _TEXT),
            **dict.fromkeys(("mutable_content", "content_available", "silent"), st.booleans()),
            "badge": st.integers(0, 1 << 62),
            "user_info": _INFO,
            "collapse_id": _TEXT | st.text("abc-!é", max_size=70),
            "priority": st.sampled_from([1, 5, 10]),
            "ttl": st.integers(0, 1 << 30),
            "interruption_level": st.sampled_from(["passive", "critical"]),
            "languages": st.dictionaries(
                st.sampled_from(["fr", "de-AT", "zh-Hant"]),
                st.fixed_dictionaries({}, optional=_MEMBERS),
                max_size=2,
            ),
        },
    )
)
def test_what_is_ordinary_can_be_composed_for_any_app(written: dict[str, Any]) -> None:
    """In every language it raises nothing, warns of nothing, and counts as loud."""
    try:
        notification = Notification.read(written)
    except NotificationError:
        assume(False)
    if not is_ordinary(_order(notification)):
        return
    wordings = compose_each(
        compose, notification, app=_APP, now=1e9, notification_id="0123456789abcde"
    )
    assert wordings.warnings == []
    assert is_loud(notification)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"title": "Hello", "body": "x" * 400, "badge": 0, "user_info": {"a": [1]}}, True),
        ({"title": "Hello", "sound": "bell.caf", "image_url": "https://example.com/1.png"}, True),
        ({"title": "Hello", "sound": {"critical": True}}, True),
        ({"title": "Hello", "languages": {"fr": {"title": "Bonjour"}}}, True),
        ({"title": "Hello", "ttl": 60, "priority": 5, "collapse_id": "order-17"}, True),
        ({"loc_key": "HELLO", "loc_args": ["you"]}, True),
        ({"title": "x" * 1600}, False),
        ({"badge": 1}, False),
        ({"silent": True}, False),
        ({"title": "Hello", "interruption_level": "critical"}, False),
        ({"title": "Hello", "push_type": "voip"}, False),
        ({"title": "Hello", "priority": 1}, False),
        ({"title": "Hello", "collapse_id": "é"}, False),
        ({"title": "Hello", "payload": {"x": 1}}, False),
    ],
)
def test_what_is_ordinary(written: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 - a row
    """Nearly every alert is; what is long, rare or of another kind is composed to be sure."""
    assert is_ordinary(_order(Notification.read(written))) is expected
