"""Where gevent or eventlet has replaced threads, the front door opens and sends as anywhere."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from handbell.testing import VirtualPhone

SEND = """
from handbell import PushNotification, Sessions
push = PushNotification()
assert push.send({"title": "Hello"}, "test@4d.com").success
"""
GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent
"""
MANY = """
jobs = [gevent.spawn(push.send, {"title": "Hello"}, "test@4d.com") for _ in range(5)]
gevent.joinall(jobs)
assert all(job.value.success for job in jobs)
assert Sessions().all_mail_addresses() == ["test@4d.com"]
"""
CASES = {
    "gevent": f"{GEVENT}{SEND}{MANY}",
    "gevent after us": f"import handbell.push{GEVENT}{SEND}",
    "eventlet": f"""
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet
    eventlet.monkey_patch()
{SEND}
jobs = [eventlet.spawn(push.send, {{"title": "Hello"}}, "test@4d.com") for _ in range(5)]
assert all(job.wait().success for job in jobs)
""",
}


HALF = f"""
{GEVENT.replace("patch_all", "patch_thread")}
from handbell import HandbellError, PushNotification
try:
    PushNotification()
except HandbellError as error:
    print(error)
"""


def run(code: str, home: Path) -> str:
    """Return what a process says that has no mistake to tell."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HANDBELL_HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("case", CASES)
def test_green_threads_send(case: str, handbell_home: Path, handbell_phone: "VirtualPhone") -> None:
    """It neither hangs nor complains, and the phone rings."""
    assert run(CASES[case], handbell_home) == ""
    assert handbell_phone.cards[0].title == "Hello"


def test_threads_that_were_replaced_alone_are_refused(handbell_home: Path) -> None:
    """Where nothing could ever be answered, an error says what to replace as well."""
    assert "patch_all()" in run(HALF, handbell_home)
