import asyncio
import time
from pathlib import Path

import pytest

from handbell.gateways.gateway import Message, Push
from handbell.gateways.outcomes import Accepted, Outcome, Refused, Unknown
from handbell.gateways.simulator import (
    AT_ONCE,
    FAILED,
    TIMED_OUT,
    UNAVAILABLE,
    UNSUPPORTED,
    SimulatorGateway,
)
from handbell.services.reactions import Reaction

PAYLOAD = '{"aps":{"alert":{"title":"Hé 🔔"}}}'.encode()
BUNDLE_ID = "com.sample.myapp"


def push(key: int = 1, address: str = "booted", push_type: str = "alert") -> Push:
    """Return one push to a simulator."""
    message = Message(
        payload=PAYLOAD, headers=(), topic=BUNDLE_ID, push_type=push_type, priority=10
    )
    return Push(key, address, "development", f"id-{key}", message)


def xcrun(folder: Path, script: str) -> str:
    """Put an executable named xcrun into the folder, and return the search path to it."""
    program = folder / "xcrun"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(folder)


def outcomes(*pushes: Push, search_path: str, timeout: float = 20) -> dict[int, Outcome]:
    """Send the pushes and return what became of each."""
    found: dict[int, Outcome] = {}

    def report(sent: Push, outcome: Outcome) -> None:
        assert sent.key not in found
        found[sent.key] = outcome

    async def run() -> None:
        gateway = SimulatorGateway(bundle_id=BUNDLE_ID, timeout=timeout, search_path=search_path)
        await gateway.send(pushes, report)
        await gateway.close()

    asyncio.run(run())
    return found


def test_payload_on_input_and_arguments(tmp_path: Path) -> None:
    """Simctl is called with the device and the app, and reads the payload from its input."""
    path = xcrun(tmp_path, f'echo "$@" > {tmp_path}/arguments; cat > {tmp_path}/payload')
    assert outcomes(push(), search_path=path) == {1: Accepted("id-1")}
    assert (tmp_path / "arguments").read_text().split() == [
        "simctl",
        "push",
        "booted",
        BUNDLE_ID,
        "-",
    ]
    assert (tmp_path / "payload").read_bytes() == PAYLOAD


def test_refusal_carries_what_simctl_said(tmp_path: Path) -> None:
    """A failed push is refused with simctl's own words, and the others go on."""
    path = xcrun(
        tmp_path,
        'cat > /dev/null; [ "$3" != booted ] || { echo "No devices are booted." >&2; exit 149; }',
    )
    found = outcomes(push(1), push(2, "12345678-1234-1234-1234-123456789ABC"), search_path=path)
    refused = found[1]
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.detail) == (FAILED, "No devices are booted.")
    assert refused.reaction is Reaction.FIX_NOTIFICATION
    assert found[2] == Accepted("id-2")


def test_without_a_mac_every_push_is_refused_clearly(tmp_path: Path) -> None:
    """Where there is no xcrun the outcome says that a Mac with Xcode is needed."""
    found = outcomes(push(1), push(2), search_path=str(tmp_path))
    for outcome in found.values():
        assert isinstance(outcome, Refused)
        assert outcome.reason == UNAVAILABLE
        assert "Mac with Xcode" in outcome.detail
        assert outcome.reaction is not Reaction.FIX_CONFIGURATION
    assert len(found) == 2


def test_an_xcrun_that_does_not_start_is_refused(tmp_path: Path) -> None:
    """A broken xcrun is an outcome, not an exception."""
    (tmp_path / "xcrun").write_bytes(b"\x7fELF not a program")
    (tmp_path / "xcrun").chmod(0o755)
    refused = outcomes(push(), search_path=str(tmp_path))[1]
    assert isinstance(refused, Refused)
    assert refused.reason == UNAVAILABLE


def test_simctl_that_does_not_read_its_input(tmp_path: Path) -> None:
    """A simctl that ends before it has read the payload is judged by its exit code."""
    path = xcrun(tmp_path, "exit 3")
    refused = outcomes(push(), search_path=path)[1]
    assert isinstance(refused, Refused)
    assert refused.detail == "simctl ended with 3"


def test_hanging_simctl_is_ended_with_its_children(tmp_path: Path) -> None:
    """A push that does not end in time is unknown, and no process of it is left."""
    path = xcrun(tmp_path, "sleep 60 & wait")
    before = time.monotonic()
    outcome = outcomes(push(), search_path=path, timeout=0.3)[1]
    waited = time.monotonic() - before
    assert outcome == Unknown(TIMED_OUT, "simctl did not end within 0.3 seconds.")
    assert waited < 10


@pytest.mark.parametrize("push_type", ["voip", "liveactivity", "location", "widgets"])
def test_simulator_takes_ordinary_notifications_only(tmp_path: Path, push_type: str) -> None:
    """A push type that simctl does not know is refused before it is called."""
    path = xcrun(tmp_path, f"touch {tmp_path}/called")
    refused = outcomes(push(push_type=push_type), search_path=path)[1]
    assert isinstance(refused, Refused)
    assert refused.reason == UNSUPPORTED
    assert push_type in refused.detail
    assert not (tmp_path / "called").exists()


def test_few_processes_at_a_time(tmp_path: Path) -> None:
    """A long batch is reported in full, with a bounded number of processes at any time."""
    path = xcrun(
        tmp_path,
        f"cat > /dev/null; mkdir -p {tmp_path}/now; touch {tmp_path}/now/$$;"
        f"ls {tmp_path}/now | wc -l >> {tmp_path}/counts; sleep 0.05; rm {tmp_path}/now/$$",
    )
    found = outcomes(*(push(key) for key in range(12)), search_path=path)
    assert set(found) == set(range(12))
    counts = [int(line) for line in (tmp_path / "counts").read_text().split()]
    assert max(counts) <= AT_ONCE
