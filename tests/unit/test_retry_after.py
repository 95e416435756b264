import pytest

from handbell._retry_after import LONGEST_SECONDS, retry_after

NOON = "Tue, 14 Nov 2023 22:13:20 GMT"
LATER = "Tue, 14 Nov 2023 22:15:20 GMT"


@pytest.mark.parametrize(
    ("headers", "now", "seconds"),
    [
        ({}, None, None),
        ({"retry-after": "120"}, None, 120),
        ({"retry-after": "0"}, None, 0),
        ({"retry-after": "9" * 400}, None, LONGEST_SECONDS),
        ({"retry-after": LATER, "date": NOON}, None, 120),
        ({"retry-after": LATER, "date": NOON}, 0, 120),
        ({"retry-after": NOON, "date": LATER}, None, 0),
        ({"retry-after": LATER}, 1_700_000_060, 60),
        ({"retry-after": LATER, "date": "never"}, 1_700_000_060, 60),
        ({"retry-after": LATER}, None, None),
        *(({"retry-after": text}, 0, None) for text in ("", "-5", "soon", "²", "1.5", "٣", "1e3")),
    ],
)
def test_a_wait_is_read_from_what_a_peer_says(
    headers: dict[str, str], now: float | None, seconds: float | None
) -> None:
    """In seconds, or as a date by the peer's own clock; what cannot be read is no wait."""
    assert retry_after(headers, now=now) == seconds
