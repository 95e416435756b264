"""Ids are drawn ahead, and never twice."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from handbell.delivery.ids import is_notification_id, new_notification_id


def test_threads_draw_different_ids() -> None:
    """Thousands from several threads: each one well formed, none twice."""
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda _: new_notification_id(), range(5000)))
    assert len(set(drawn)) == 5000
    assert all(map(is_notification_id, drawn))


def test_a_forked_process_draws_its_own() -> None:
    """What was drawn ahead stays with the parent."""
    new_notification_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join(new_notification_id() for _ in range(300)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    theirs = {told[start : start + 15] for start in range(0, len(told), 15)}
    assert len(theirs) == 300
    assert theirs.isdisjoint(new_notification_id() for _ in range(300))


def test_ids_that_are_drawn_in_turn_are_neighbours() -> None:
    """Nearly all are the one before and one more, so that an index grows at few places."""
    numbers = [int(new_notification_id(), 16) for _ in range(600)]
    steps = [following - number for number, following in pairwise(numbers)]
    assert steps.count(1) >= 590
    assert len({number >> 8 for number in numbers}) >= 3
