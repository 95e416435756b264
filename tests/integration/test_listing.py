"""Lists of notifications and deliveries: filters, and pages that end."""

import asyncio

import pytest
from tests.scene import Scene

from handbell.delivery.ledger.listing import DeliverySearch, NotificationSearch, NotificationStatus

pytestmark = pytest.mark.databases


def _send(scene: Scene, *sends: tuple[object, dict[str, str]]) -> list[str]:
    """Send these, an hour apart, and return their ids."""

    async def send() -> list[str]:
        async with scene.running() as engine:
            ids = []
            for to, said in sends:
                how = dict(said)
                title = how.pop("title", "Hello")
                ids.append((await scene.accept(engine, to, how, title=title)).id)
                await engine.worker.settled(
                    scene.system.reports.page(NotificationSearch(), limit=1)[0].row
                )
                scene.clock.ahead += 3600
            return ids

    return asyncio.run(send())


def test_pages_follow_each_other_to_the_end(scene: Scene) -> None:
    """Each notification is on one page, the newest first, whatever comes in between."""
    scene.add_phones(1)
    ids = _send(scene, *[("user0@example.com", {})] * 5)
    reports = scene.system.reports
    first = reports.page(NotificationSearch(app=scene.app.id), limit=3)
    _send(scene, ("user0@example.com", {}))
    second = reports.page(NotificationSearch(app=scene.app.id, before=first[-1].row), limit=3)
    assert [one.id for one in (*first, *second)] == ids[::-1]
    assert reports.page(NotificationSearch(app=scene.app.id, before=second[-1].row), limit=3) == []


@pytest.mark.parametrize(
    ("search", "places"),
    [
        (NotificationSearch(), [3, 2, 1, 0]),
        (NotificationSearch(text="LUNCH"), [1]),
        (NotificationSearch(text="nobody@"), [2]),
        (NotificationSearch(text="100%"), []),
        (NotificationSearch(urgency=9), [1]),
        (NotificationSearch(standing="open"), [3]),
        (NotificationSearch(standing="failed"), [2]),
        (NotificationSearch(standing="cancelled"), []),
        (NotificationSearch(app="TEAM123456.com.sample.other"), []),
    ],
)
def test_a_search_finds_what_it_asks_for(
    scene: Scene, search: NotificationSearch, places: list[int]
) -> None:
    """Filters by text, urgency, app and by how it stands find those and no others."""
    scene.add_phones(1)
    scene.register("nobody@example.com", "ab" * 32)
    later = "2099-01-01T10:00+00:00"
    ids = _send(
        scene,
        ("user0@example.com", {}),
        ("user0@example.com", {"title": "Lunch is ready", "urgency": "urgent"}),
        ("nobody@example.com", {}),
        ("user0@example.com", {"send_at": later}),
    )
    found = scene.system.reports.page(search, limit=10)
    assert [ids.index(one.id) for one in found] == places


def test_a_search_knows_times_and_what_was_cancelled(scene: Scene) -> None:
    """``since`` is in, ``until`` is not; a cancelled one is found as such."""
    scene.add_phones(1)
    ids = _send(scene, *[("user0@example.com", {"send_at": "2099-01-01T10:00+00:00"})] * 3)
    reports = scene.system.reports
    written = [one.created_at for one in reports.page(NotificationSearch(), limit=3)][::-1]
    found = reports.page(NotificationSearch(since=written[1], until=written[2]), limit=3)
    assert [one.id for one in found] == [ids[1]]
    scene.system.ledger.begin_cancel(scene.app, ids[2])
    cancelled: NotificationStatus = "cancelled"
    assert [one.id for one in reports.page(NotificationSearch(standing=cancelled), limit=3)] == [
        ids[2]
    ]


def test_deliveries_come_in_pages_and_by_state_reason_and_mail(scene: Scene) -> None:
    """Each delivery is on one page; the filters keep what they name."""
    scene.add_phones(4)
    scene.register("gone@example.com", "ab" * 32)
    (sent,) = _send(scene, ({"everybody": True}, {}))
    reports = scene.system.reports
    numbers: list[int] = []
    after: int | None = None
    for _ in range(3):
        page = reports.deliveries(sent, DeliverySearch(after=after), limit=2)
        numbers += [one.number for one in page.deliveries]
        after = page.following
    assert after is None
    assert numbers == [one.number for one in scene.deliveries(sent)]

    def labels(search: DeliverySearch) -> list[str | None]:
        return [one.mail for one in reports.deliveries(sent, search, limit=9).deliveries]

    assert labels(DeliverySearch(mail="user2@example.com")) == ["user2@example.com"]
    assert labels(DeliverySearch(state="failed")) == ["gone@example.com"]
    assert labels(DeliverySearch(reason="BadDeviceToken")) == ["gone@example.com"]
    assert len(labels(DeliverySearch(state="sent"))) == 4
    overview = reports.funnel(sent).overview
    assert dict(overview.states) == {"sent": 4, "failed": 1}
