"""What is remembered of sessions that were taken back while deliveries to them were in hand."""

from handbell.delivery.work.release_log import ReleaseLog


def test_what_was_read_before_a_release_is_stale() -> None:
    """A reading that began before a session was released is wrong about it, and about no other."""
    release_log = ReleaseLog()
    reading = release_log.begin()
    assert not reading.is_concerned
    release_log.add([7])
    assert reading.is_concerned
    assert reading.is_stale(7)
    assert not reading.is_stale(8)


def test_what_was_read_after_a_release_is_not() -> None:
    """A session that came back is read anew and is served."""
    release_log = ReleaseLog()
    earlier = release_log.begin()
    release_log.add([7])
    later = release_log.begin()
    assert earlier.is_stale(7)
    assert not later.is_stale(7)
    release_log.add([7])
    assert later.is_stale(7)


def test_nothing_is_kept_that_nobody_could_miss() -> None:
    """Sessions are forgotten as soon as no older reading is held, so memory stays flat."""
    release_log = ReleaseLog()
    release_log.add(range(1000))
    assert len(release_log) == 0
    first = release_log.begin()
    release_log.add([1])
    second = release_log.begin()
    release_log.add([2])
    assert len(release_log) == 2
    first.end()
    assert not second.is_stale(1)
    assert second.is_stale(2)
    assert len(release_log) == 1
    second.end()
    assert len(release_log) == 0


def test_a_reading_lasts_until_each_of_its_holders_let_go() -> None:
    """A page that was split in two is watched until both parts are on the wire."""
    release_log = ReleaseLog()
    reading = release_log.begin()
    part = reading.share()
    reading.end()
    reading.end()
    release_log.add([7])
    assert part.is_stale(7)
    part.end()
    assert len(release_log) == 0
