"""The pure parts of the console's pages: the chart, what is watched, a draft read."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.creation.notification import Notification
from handbell.delivery.accept.audience import Audience
from handbell.delivery.ledger.reports import Overview
from handbell.delivery.record.hourly_counts import HOUR, HourCount
from handbell.errors import NotificationError
from handbell.server.console.activity import standing_of
from handbell.server.console.chart import HEIGHT, draw, nice
from handbell.server.console.compose_preview import tell
from handbell.server.console.draft import Draft, field_of, read_notification
from handbell.server.console.formatting import percent
from handbell.server.console.forms import Faults, Form
from handbell.server.console.progress_cache import KEPT, SHARE, ProgressCache

START = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp() * 1000)
NUMBERS = st.integers(min_value=0, max_value=10**9)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_scale_ends_at_a_round_number_that_is_enough(number: int) -> None:
    """It is 1, 2 or 4 with zeros, not smaller than the number, and its half is whole."""
    top = nice(number)
    assert top >= number
    assert str(top).rstrip("0") in {"1", "2", "4"}
    assert top <= max(4, number * 2.5)
    assert top % 2 == 0


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=30))
def test_bars_fit_and_what_is_there_is_seen(counts: list[tuple[int, int, int]]) -> None:
    """No bar is higher than the chart but for what makes small ones visible; none is lost."""
    buckets = [
        HourCount(start=START + place * HOUR, hours=1, sent=sent, failed=failed, opened=opened)
        for place, (sent, failed, opened) in enumerate(counts)
    ]
    chart = draw(buckets)
    assert chart.sent == sum(one.sent for one in buckets)
    for bar in chart.bars:
        assert bar.sent + bar.failed <= HEIGHT + 2
        assert bool(bar.sent) == bool(bar.bucket.sent)
        assert bool(bar.failed) == bool(bar.bucket.failed)
        assert f"{bar.bucket.sent:,} sent" in bar.told


def test_the_axis_names_some_bars_and_the_last() -> None:
    """Of 24 hours every fourth is named, of 30 days every fifth."""
    hours = draw([HourCount(start=START + place * HOUR, hours=1) for place in range(24)])
    assert [bar.label for bar in hours.bars if bar.label] == [
        "03:00",
        "07:00",
        "11:00",
        "15:00",
        "19:00",
        "23:00",
    ]
    days = draw([HourCount(start=START + place * 24 * HOUR, hours=24) for place in range(30)])
    assert [bar.label for bar in days.bars if bar.label][-1] == "23 Dec"
    assert days.is_empty


def test_a_value_is_kept_in_proportion_to_its_cost() -> None:
    """What took two seconds is found again only after sixteen, and then anew."""
    clock = [0.0]
    found: list[int] = []

    def find() -> int:
        clock[0] += 2
        found.append(len(found))
        return found[-1]

    watched: ProgressCache[int] = ProgressCache(clock=lambda: clock[0])
    assert [watched.get("a", find) for _ in range(3)] == [0, 0, 0]
    clock[0] += 2 * SHARE - 0.1
    assert watched.get("a", find) == 0
    clock[0] += 0.2
    assert watched.get("a", find) == 1
    watched.forget("a")
    assert watched.get("a", find) == 2


def test_many_that_look_at_once_cost_one_look() -> None:
    """While a value is being found, others wait for it instead of finding it too."""
    found: list[int] = []
    begun, may_end = threading.Event(), threading.Event()

    def find() -> int:
        begun.set()
        assert may_end.wait(5)
        found.append(1)
        return len(found)

    watched: ProgressCache[int] = ProgressCache()
    threads = [threading.Thread(target=watched.get, args=("a", find)) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert begun.wait(5)
    may_end.set()
    for thread in threads:
        thread.join(5)
    assert found == [1]


def test_only_so_many_values_are_kept() -> None:
    """Memory is bounded: the oldest is found anew."""
    watched: ProgressCache[int] = ProgressCache(clock=lambda: 0.0)
    for place in range(KEPT + 1):
        watched.get(str(place), lambda: 1)
    assert watched.get("0", lambda: 2) == 2
    assert watched.get(str(KEPT), lambda: 2) == 1


def test_an_error_is_not_kept() -> None:
    """What failed once is tried anew."""

    def fail() -> int:
        raise LookupError

    watched: ProgressCache[int] = ProgressCache(clock=lambda: 0.0)
    with pytest.raises(LookupError):
        watched.get("a", fail)
    assert watched.get("a", lambda: 3) == 3


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (0, "0 %"),
        (1 / 3, "33 %"),
        (1, "100 %"),
        (0.00001, "0.1 %"),
        (0.99999, "99.9 %"),
        (0.996, "99.6 %"),
        (0.01, "1 %"),
    ],
)
def test_a_share_is_told_in_whole_percent(share: float, told: str) -> None:
    """Few are not none, and nearly all are not all."""
    assert percent(share) == told


@pytest.mark.parametrize(
    ("audience", "sentence"),
    [
        (Audience(people=0, devices=0, without=3), "Nobody is reached."),
        (Audience(people=1, devices=2, without=0), "Reaches 1 person on 2 devices."),
        (Audience(people=0, devices=1, without=0), "Reaches 1 device."),
        (
            Audience(people=1200, devices=1500, without=1),
            "Reaches 1,200 people on 1,500 devices; 1 person has no device.",
        ),
        (
            Audience(people=2, devices=2, without=2, left_out=("a", "b")),
            "Reaches 2 people on 2 devices; 2 of those named are left out.",
        ),
    ],
)
def test_an_audience_is_told_in_a_sentence(audience: Audience, sentence: str) -> None:
    """People, devices and who is left out, in plain words."""
    assert tell(audience) == sentence


@pytest.mark.parametrize(
    ("states", "more", "word"),
    [
        ({"sent": 1, "queued": 1}, {"is_running": True}, "Going out"),
        ({"sent": 1}, {"ahead": 5, "is_running": True}, "Going out"),
        ({"held": 1}, {}, "Waits"),
        ({"sent": 2, "failed": 1}, {}, "Sent"),
        ({"sent": 1, "failed": 1, "expired": 1}, {}, "Mostly failed"),
        ({"sent": 1, "cancelled": 9}, {}, "Partly cancelled"),
        ({"expired": 1}, {}, "Failed"),
        ({"cancelled": 1}, {}, "Cancelled"),
        ({}, {"cancelled_at": 1}, "Cancelled"),
        ({}, {}, "Reached nobody"),
    ],
)
def test_a_notification_stands_as_its_deliveries_do(
    states: dict[str, int], more: dict[str, Any], word: str
) -> None:
    """One word says how a notification stands, from what runs to what reached nobody."""
    plain: dict[str, Any] = {"cancelled_at": None, "ahead": 0, "is_running": False}
    one = Overview(
        id="", app="", title="", recipients="", created_at=0, states=states, **{**plain, **more}
    )
    assert standing_of(one)[1] == word


TEXTS = st.text(max_size=40)
FIELDS = ("title", "subtitle", "body", "url", "sound", "thread_id", "collapse_id", "category")


@given(st.dictionaries(st.sampled_from(FIELDS), TEXTS))
def test_a_form_holds_what_a_notification_says(said: dict[str, str]) -> None:
    """A form filled with a notification's content reads back as the same notification."""
    faults = Faults()
    draft = Draft.read(Form({name: [text] for name, text in said.items()}))
    content = draft.content(faults)
    notification = read_notification(lambda: Notification.read(content), faults)
    if notification is None:
        assert faults
        return
    again = Draft.of_notification(notification.to_dict())
    assert Notification.read(again.content(Faults())) == notification


@given(st.dictionaries(TEXTS, st.lists(TEXTS, min_size=1, max_size=2), max_size=8))
def test_no_form_makes_reading_fail(sent: dict[str, list[str]]) -> None:
    """Whatever fields come, each is read or becomes a fault."""
    draft = Draft.read(Form(sent))
    for read in (draft.content, draft.people, draft.options):
        read(Faults())
    assert Draft.read(Form({name: [text] for name, text in draft.fields()})) == draft


def test_a_fault_finds_its_field() -> None:
    """The field that an error names first is where it is shown; without one, the title."""
    faults = Faults()
    read_notification(lambda: Notification.read({"badge": -1}), faults)
    assert [name for name, _ in faults] == ["badge"]
    assert field_of(NotificationError("Something is wrong")) == "title"
