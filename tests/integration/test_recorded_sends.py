"""What a send comes to is what it came to before, whichever door it takes and whoever comes too."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.recorded_sends import Office, Send, read_table

AT_ONCE = 20


async def _together(office: Office, sends: Sequence[Send]) -> list[tuple[int, Any]]:
    answers: list[tuple[int, Any]] = []
    for start in range(0, len(sends), AT_ONCE):
        some = sends[start : start + AT_ONCE]
        answers += await asyncio.gather(*map(office.call, some))
    return answers


async def _in_a_list(office: Office, sends: Sequence[Send]) -> list[tuple[int, Any]]:
    body = f"[{','.join(send.body for send in sends)}]"
    answer = await office.client.post("/notifications/list", content=body.encode())
    return [_as_a_call(one) for one in answer.json()]


async def _as_lines(office: Office, sends: Sequence[Send]) -> list[tuple[int, Any]]:
    body = b"".join(send.content + b"\n" for send in sends)
    headers = {"Content-Type": "application/x-ndjson"}
    answer = await office.client.post("/notifications/lines", content=body, headers=headers)
    return [_as_a_call(json.loads(line)) for line in answer.text.splitlines()[:-1]]


def _as_a_call(answer: dict[str, Any]) -> tuple[int, Any]:
    problem = answer.get("error")
    return (202, answer) if problem is None else (problem["status"], problem)


def _is_for_every_door(send: Send) -> bool:
    """Return whether a send is an object without a key of the header's."""
    return send.key is None and (send.answer or {}).get("code") != "request-malformed"


def test_single_calls(tmp_path: Path) -> None:
    """Status, answer and rows of each, however many come at once."""
    _compare(tmp_path, _together, read_table())


@pytest.mark.parametrize("call", [_in_a_list, _as_lines])
def test_many_in_one_call(tmp_path: Path, call: Any) -> None:
    """The same, but for what is no JSON, and for the header's key, which each send has its own."""
    table = read_table()
    kept = [place for place, send in enumerate(table) if _is_for_every_door(send)]
    moved = {place: new for new, place in enumerate(kept)}
    sends = []
    for place in kept:
        send = table[place]
        first = (send.answer or {}).get("id")
        # What repeats a send that is left out is not comparable.
        if first is not None:
            send = send._replace(answer={**(send.answer or {}), "id": moved[first]})
        sends.append(send)
    _compare(tmp_path, call, sends)


def _compare(folder: Path, call: Any, sends: Sequence[Send]) -> None:
    async def scenario() -> list[dict[str, Any]]:
        office = Office(folder)
        async with office.client:
            found = office.came(await call(office, sends))
        office.system.database.close()
        return found

    found = asyncio.run(scenario())
    assert len(found) == len(sends) > 300
    for send, came in zip(sends, found, strict=True):
        assert came == send.came, send.body
