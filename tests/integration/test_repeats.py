"""What may have been sent before stays a repeat, whatever holds it until it is sent again."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update
from tests.scripted import Play, open_play

from handbell.storage.tables import deliveries


def _miss_key(play: Play, is_stopped: bool) -> None:  # noqa: FBT001 - as on a switch
    play.system.is_missing = is_stopped


def _switch_off(play: Play, is_stopped: bool) -> None:  # noqa: FBT001
    play.system.app_control.switch(play.app, not is_stopped)


def _answer_busy(play: Play, is_stopped: bool) -> None:  # noqa: FBT001
    play.gateway.answers = "later" if is_stopped else None


@pytest.mark.parametrize("stop", [_miss_key, _switch_off, _answer_busy])
def test_a_repeat_that_is_held_is_sent_with_a_collapse_id(
    tmp_path: Path, stop: Callable[[Play, bool], None]
) -> None:
    """A phone that got it before the crash shows it once, after whatever wait."""

    async def scenario(play: Play) -> None:
        accepted = await play.accept(play.mails)
        stop(play, True)
        with play.system.database.write() as connection:
            # As the rows of a worker that died are given back.
            connection.execute(update(deliveries).values(is_repeat=True))
        await play.start()
        await play.until(lambda: play.states(accepted) == {"held": len(play.mails)})
        stop(play, False)
        play.clock.move(600)
        await play.until(lambda: sum(len(call.pushes) for call in play.gateway.calls) > 0)
        pushes = [push for call in play.gateway.calls for push in call.pushes]
        assert all(push.collapse_id for push in pushes)
        for call in list(play.gateway.calls):
            call.answer(len(call.pushes), None)
        await play.stop(within=0.5)

    with open_play(tmp_path) as play:
        asyncio.run(scenario(play))
