"""Names of notifications and pushes."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.delivery.ids import apns_id, is_notification_id, new_notification_id, read_apns_id
from handbell.services.apns.protocol import APNS_ID_PATTERN

ROWS = st.integers(min_value=1, max_value=2**60 - 1)


@given(ROWS)
def test_an_apns_id_is_a_canonical_uuid_that_can_be_read_back(row: int) -> None:
    """Every delivery's apns-id is a UUID of version 8 in Apple's form, and names its delivery."""
    notification = new_notification_id()
    name = apns_id(notification, row)
    assert APNS_ID_PATTERN.fullmatch(name)
    assert (uuid.UUID(name).version, uuid.UUID(name).variant) == (8, uuid.RFC_4122)
    assert read_apns_id(name) == (notification, row)
    assert read_apns_id(name.upper()) == (notification, row)


def test_a_notification_id_is_recognised() -> None:
    """What is made as a notification's id is taken for one, and nothing else is."""
    assert is_notification_id(new_notification_id())
    assert not is_notification_id("test@4d.com")


@pytest.mark.parametrize("text", ["", "x", str(uuid.UUID(int=0)), "0" * 36])
def test_a_foreign_apns_id_names_no_delivery(text: str) -> None:
    """An id that Handbell did not make is not taken for one of its own."""
    assert read_apns_id(text) is None


def test_a_random_uuid_is_no_delivery() -> None:
    """A UUID of version 4, as other programs make, is foreign."""
    assert read_apns_id(str(uuid.uuid4())) is None
