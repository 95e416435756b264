"""Refused tokens that wait for a judgement: it comes, also where nothing else is heard any more."""

import concurrent.futures
from pathlib import Path

import pytest

from handbell import PushNotification
from handbell.demo_environment import isolated_settings
from handbell.system import System
from handbell.testing import VirtualPhone


@pytest.mark.parametrize("dead", [1, 2, 3])
def test_a_send_with_dead_tokens_ends_by_itself(
    handbell_home: Path, handbell_phone: VirtualPhone, handbell_push: PushNotification, dead: int
) -> None:
    """What is accepted and what is refused come back in one moment, and no further send follows."""
    system = System(isolated_settings(handbell_home))
    (app,) = system.apps.list()
    named = [f"user{number}@example.com" for number in range(dead)]
    for number, mail in enumerate(named):
        system.registry.register(app, mail, f"{number:02x}" * 32, environment="twin")
    system.database.close()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        sent = pool.submit(handbell_push.send, {"title": "Hello"}, ["test@4d.com", *named])
        states = [one.state for one in sent.result(timeout=8).deliveries]
    assert sorted(states) == [*["failed"] * dead, "sent"]
    assert len(handbell_phone.cards) == 1
