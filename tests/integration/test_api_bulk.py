"""Many sends in one request: a stream of lines, answered while it is still coming."""

import asyncio
import concurrent.futures
import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.conftest import Stage
from tests.serving import Server, start_server

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.prepare import Entry
from handbell.storage.group_commit import GroupCommit

MAIL = "test@4d.com"
LINE = {"notification": {"title": "Hello"}, "recipients": MAIL}
NDJSON = {"Content-Type": "application/x-ndjson"}
SHORT = 4096


@pytest.fixture
def server(stage: Stage) -> Iterator[Server]:
    """Give a server that takes short lines only, over a stage with one phone."""
    short = stage.system.settings.model_copy(update={"max_body_bytes": SHORT})
    stage.system.settings = short
    stage.add_phone(MAIL)
    with start_server(stage.system, has_console=False) as running:
        yield running


class Wire:
    """A connection on which a request is written and its answer read, each as far as it goes."""

    def __init__(self, server: Server, stage: Stage, *, prefer: str = "") -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self._read = self.socket.makefile("rb")
        head = (
            f"POST /v1/apps/{stage.app.id}/notifications HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {server.key('send')}\r\nTransfer-Encoding: chunked\r\n"
            f"Content-Type: application/x-ndjson\r\nPrefer: {prefer}\r\n\r\n"
        )
        self.socket.sendall(head.encode())

    def write(self, piece: bytes) -> None:
        """Write a piece of the body."""
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))

    def end(self) -> None:
        """End the body."""
        self.socket.sendall(b"0\r\n\r\n")

    def read_head(self) -> int:
        """Return the status of the answer, once it has begun."""
        status = int(self._read.readline().split()[1])
        while self._read.readline().strip():
            pass
        return status

    def read_piece(self) -> list[dict[str, Any]]:
        """Return the answers of the next piece; none at the end."""
        size = int(self._read.readline(), 16)
        piece = self._read.read(size + 2)[:size]
        return [json.loads(line) for line in piece.splitlines()]

    def close(self) -> None:
        """Go away."""
        self._read.close()
        self.socket.close()


def _lines(*values: Any) -> bytes:
    return b"".join(
        (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n"
        for value in values
    )


def _send(server: Server, stage: Stage, content: bytes, **headers: str) -> list[dict[str, Any]]:
    """Send a stream at once and return its answers."""
    with server.client(server.key("send")) as client:
        answer = client.post(
            f"/v1/apps/{stage.app.id}/notifications",
            content=content,
            headers={**NDJSON, **{name.replace("_", "-"): each for name, each in headers.items()}},
        )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def _stored(stage: Stage) -> set[str]:
    return {one.id for one in stage.system.reports.newest(limit=1000)}


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_each_line_has_its_answer_and_a_bad_one_is_no_matter_to_the_others(
    server: Server, stage: Stage
) -> None:
    """Answers come in the order of the lines, by number; the last line counts them."""
    content = _lines(
        LINE,
        b"{",
        b"",
        {"notification": {}, "recipients": MAIL},
        b'"' + b"x" * (SHORT + 10) + b'"',
        [LINE],
        {**LINE, "recipients": "nobody@example.com"},
        b"\xff",
        LINE,
    )
    *answers, last = _send(server, stage, content)
    assert [(one["line"], one.get("error", {}).get("code")) for one in answers] == [
        (1, None),
        (2, "request-malformed"),
        (4, "notification-invalid"),
        (5, "body-too-large"),
        (6, "request-invalid"),
        (7, None),
        (8, "request-malformed"),
        (9, None),
    ]
    assert last == {"accepted": 3, "refused": 5}
    assert "nobody@example.com" in answers[5]["warnings"][0]
    assert _stored(stage) == {one["id"] for one in answers if "id" in one}


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_stream_has_only_its_end(server: Server, stage: Stage, content: bytes) -> None:
    """Nothing accepted, nothing refused."""
    assert _send(server, stage, content) == [{"accepted": 0, "refused": 0}]


def test_a_minimal_answer_names_only_what_has_to_be_known(server: Server, stage: Stage) -> None:
    """What was accepted without a warning is counted and not named."""
    warned = {**LINE, "recipients": "nobody@example.com"}
    answers = _send(server, stage, _lines(LINE, b"{", warned, LINE), Prefer="return=minimal")
    assert [one.get("line") for one in answers] == [2, 3, None]
    assert answers[-1] == {"accepted": 3, "refused": 1}


def test_a_line_is_answered_while_the_next_is_not_written_yet(server: Server, stage: Stage) -> None:
    """A conversation: one line, its answer, and so on, on one connection."""
    wire = Wire(server, stage)
    for number in range(1, 4):
        wire.write(_lines(LINE))
        if number == 1:
            assert wire.read_head() == 200
        (answer,) = wire.read_piece()
        assert answer["line"] == number
        assert answer["id"] in _stored(stage)
    wire.end()
    assert wire.read_piece() == [{"accepted": 3, "refused": 0}]
    assert wire.read_piece() == []
    wire.close()


def test_who_goes_away_loses_nothing_that_was_accepted(server: Server, stage: Stage) -> None:
    """What was answered is stored; the line that was cut off is not."""
    wire = Wire(server, stage)
    wire.write(_lines(LINE, LINE) + json.dumps(LINE).encode())
    assert wire.read_head() == 200
    known = {one["id"] for one in wire.read_piece()}
    wire.close()
    assert known
    _until(lambda: len(_stored(stage)) == 2)
    assert known <= _stored(stage)
    # The server goes on, and has let go of the request.
    assert _send(server, stage, _lines(LINE))[-1] == {"accepted": 1, "refused": 0}
    assert len(_stored(stage)) == 3


def test_a_stop_ends_a_stream_with_the_line_to_go_on_from(server: Server, stage: Stage) -> None:
    """What was read is answered, an error names the first line that was not, and that is all."""
    wire = Wire(server, stage)
    wire.write(_lines(LINE, LINE) + json.dumps(LINE).encode())
    assert wire.read_head() == 200
    answered = wire.read_piece()
    while len(answered) < 2:
        answered += wire.read_piece()

    async def stop() -> None:
        server.context.stopping.set()

    server.run(stop())
    left, last = wire.read_piece()
    assert (left["line"], left["error"]["code"]) == (3, "unavailable")
    assert last == {"accepted": 2, "refused": 0}
    assert wire.read_piece() == []
    assert _stored(stage) == {one["id"] for one in answered}
    wire.close()


def test_a_client_that_reads_nothing_is_not_read_from(server: Server, stage: Stage) -> None:
    """Back-pressure: of a stream without an end only a bounded part is taken in."""
    wire = Wire(server, stage)
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.socket.settimeout(0.5)
    bad = _lines(*[b"{"] * 2000)
    taken = 0
    with contextlib.suppress(TimeoutError):
        while taken < 20_000_000:
            wire.write(bad)
            taken += len(bad)
    assert taken < 20_000_000
    wire.close()
    assert _send(server, stage, _lines(LINE))[-1] == {"accepted": 1, "refused": 0}


def test_many_lines_are_stored_each_once(server: Server, stage: Stage) -> None:
    """A thousand sends of one stream: as many ids, and the phone gets each."""
    answers = _send(server, stage, _lines(*[LINE] * 1000))
    named = {one["id"] for one in answers[:-1]}
    assert len(named) == 1000
    assert _stored(stage) == named
    (session,) = stage.system.registry.sessions_of(stage.app, MAIL)
    _until(lambda: len(stage.twin.accepted_of(session.token)) == 1000)
    assert set(stage.twin.accepted_of(session.token).values()) == {1}


def test_a_key_in_a_stream_serves_once(server: Server, stage: Stage) -> None:
    """Within one batch the second line with a key gets the first one's answer."""
    keyed = {**LINE, "idempotency_key": "same"}
    other = {**keyed, "notification": {"title": "Other"}}
    first, second, third, last = _send(server, stage, _lines(keyed, keyed, other))
    assert first["id"] == second["id"]
    assert third["error"]["code"] == "idempotency-conflict"
    assert last == {"accepted": 2, "refused": 1}
    # A header's key stands for each line with its number.
    answers = [_send(server, stage, _lines(LINE, LINE), Idempotency_Key="k") for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(_stored(stage)) == 3


def test_one_key_from_many_at_once_is_one_send(server: Server, stage: Stage) -> None:
    """Single calls that are gathered into one commit, and calls beside: one notification."""
    with server.client(server.key("send")) as client:
        address = f"/v1/apps/{stage.app.id}/notifications"

        def call(number: int) -> tuple[int, str]:
            title = "Other" if number % 8 == 7 else "Hello"
            body = {"notification": {"title": title}, "recipients": MAIL}
            answer = client.post(address, json=body, headers={"Idempotency-Key": "k"})
            return answer.status_code, answer.json().get("id", "")

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(call, range(64)))
    ids = {name for status, name in answers if status == 202}
    assert len(ids) == 1
    assert {status for status, _ in answers} == {202, 409}
    assert len(_stored(stage)) == 1


def test_calls_at_the_same_time_share_a_commit(server: Server, stage: Stage) -> None:
    """Forty calls that wait together take far fewer transactions, and each has its own answer."""
    steps: list[int] = []
    engine = stage.system.engine
    accept_many = engine.accept_many

    async def counted(entries: Any) -> Any:
        steps.append(len(entries))
        return await accept_many(entries)

    async def run() -> list[str]:
        gathering = GroupCommit(counted)
        content = Notification.read({"title": "Hello"})
        entry = Entry(app=stage.app, notification=content, recipients=Recipients.read(MAIL))
        outcomes = await asyncio.gather(*(gathering.bring([entry]) for _ in range(40)))
        return [one.id for (one,) in outcomes]

    assert len(set(server.run(run()))) == 40
    assert len(steps) <= 3
