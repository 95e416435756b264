"""What is taken to be certain about a notification is."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from handbell.creation.notification import Notification
from handbell.delivery.accept.prepare import is_ordinary
from handbell.delivery.work.composed import is_loud
from handbell.errors import NotificationError
from handbell.gateways.apns.wording_cache import compose_each

_TEXT = st.text(st.characters(codec="utf-8"), max_size=400)
_INFO = st.dictionaries(_TEXT, _TEXT | st.integers(-9, 1 << 60) | st.floats(allow_nan=False))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("title", "subtitle", "body", "url", "thread_id", "category"), _TEXT),
            "image_url": _TEXT,
            "badge": st.integers(0, 1 << 62),
            "user_info": _INFO,
            "collapse_id": _TEXT,
            "silent": st.booleans(),
            "sound": _TEXT | st.just({"critical": True}),
        },
    )
)
def test_what_is_ordinary_can_be_composed_for_any_app(written: dict[str, Any]) -> None:
    """It raises nothing, warns of nothing, and counts as loud."""
    try:
        notification = Notification.read(written)
    except NotificationError:
        assume(False)
    if not is_ordinary(notification):
        return
    wordings = compose_each(
        notification, bundle_id="a" * 155, now=1e9, notification_id="0123456789abcde"
    )
    assert wordings.warnings == []
    assert is_loud(notification, wordings.own.message)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"title": "Hello", "body": "x" * 400, "badge": 0, "user_info": {"a": [1]}}, True),
        ({"title": "Hello", "sound": "bell.caf", "image_url": "https://example.com/1.png"}, True),
        ({"title": "Hello", "sound": {"critical": True}}, False),
        ({"title": "x" * 1600}, False),
        ({"badge": 1}, False),
        ({"silent": True}, False),
        ({"title": "Hello", "interruption_level": "critical"}, False),
        ({"title": "Hello", "languages": {"fr": {"title": "Bonjour"}}}, False),
        ({"title": "Hello", "push_type": "voip"}, False),
        ({"title": "Hello", "ttl": 60}, False),
    ],
)
def test_what_is_ordinary(written: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 - a row
    """Nearly every alert is; whatever has an option, or is long, is looked at in full."""
    assert is_ordinary(Notification.read(written)) is expected
