"""Programs that end without closing anything: soon, in silence, and with their work handed back.

Each case is a real process that ends as Python ends it, in a home in which something is amiss: work
is left over, an app has a cap, Apple is silent or overloaded, the database is locked.
"""

import asyncio
import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass

import pytest
from tests.leaver import Leaver, Left

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.settings import DATABASE_FILE, Settings
from handbell.system import System
from handbell.twin.threaded import RunningTwin, start_twin

APP = "TEAM123456.com.sample.myapp"
MAIL = "test@4d.com"
DUE = 15
SOON = 20.0
"""Far less than the minute that a push may take here: nobody waited for one."""

_ENVIRONMENT = "HANDBELL_"
_STATES = """
SELECT DISTINCT state FROM deliveries WHERE coalesce(reason, '') NOT IN ('Scheduled', 'Capped')
"""


@dataclass
class Place:
    """A home in which something is amiss, and processes that run scripts in it."""

    system: System
    twin: RunningTwin
    app: App
    leaver: Leaver
    state: str

    def run(self, script: str) -> Left:
        """Run a script, with something left over to send."""
        self.leave_due()
        return self.leaver.run(script)

    def leave_due(self) -> None:
        """Leave work behind, as a process does that was killed."""
        if self.state == "calm":
            return
        content, people = Notification.read({"title": "Left over"}), Recipients.read(MAIL)

        async def accept() -> None:
            for _ in range(DUE):
                await self.system.engine.accept(self.app, content, people)

        asyncio.run(accept())
        del self.system.__dict__["engine"]

    def ask(self, query: str) -> int:
        """Return the number that a query comes to."""
        with closing(sqlite3.connect(self.system.settings.home / DATABASE_FILE)) as raw:
            return int(raw.execute(query).fetchone()[0])

    @property
    def taken(self) -> int:
        """How much is under the name of a worker, and how many workers there are."""
        held = "SELECT count(*) FROM deliveries WHERE worker_id IS NOT NULL"
        return self.ask(held) + self.ask("SELECT count(*) FROM workers")


@pytest.fixture(scope="module")
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Give a home in one of the states, and prove at the end that everything was sent."""
    folder, state = tmp_path_factory.mktemp("place"), str(request.param)
    with ExitStack() as stack:
        twin = stack.enter_context(start_twin(folder / "twin"))
        values = {
            "home": str(folder / "home"),
            "apns_production_url": twin.production_url,
            "apns_development_url": twin.development_url,
            "apns_ca_file": str(twin.ca_file),
            "request_timeout": "60",
        }
        system = System(Settings.load(**values))
        app = _furnish(system, twin)
        environment = {f"{_ENVIRONMENT}{name.upper()}": value for name, value in values.items()}
        leaver = stack.enter_context(Leaver(folder / "scripts", environment))
        _disturb(system, twin, app, state)
        yield Place(system, twin, app, leaver, state)
        twin.clear_faults()
        system.app_control.set_rules(app, {"cap": "none"})
        assert asyncio.run(_work_off(system)) <= {"sent"}
        system.database.close()


def _furnish(system: System, twin: RunningTwin) -> App:
    named = App.read_id(APP)
    app = system.apps.add(named.team_id, named.bundle_id, name="My App")
    key = make_key(app.apple.team_id)
    system.apps.add_credential(app, key)
    twin.add_key(key.team_id, key.key_id, key.public_key_pem)
    twin.add_app(app.id, app.name)
    phone = twin.add_phone(mail=MAIL, app=app.id)
    system.registry.register(app, MAIL, phone.token)
    return app


def _disturb(system: System, twin: RunningTwin, app: App, state: str) -> None:
    if state == "capped":
        system.app_control.set_rules(app, {"cap": "9/day"})
    elif state == "silent":
        twin.add_fault("silence", count=100_000)
    elif state == "overloaded":
        twin.add_fault("answer", count=100_000, reason="ServiceUnavailable")


_LOOKS = 5
"""How often what waits is made due: what lost its worker with a program waits a while again."""


async def _work_off(system: System) -> set[str]:
    """Send all that was left behind, whenever it is due, and return the states of everything."""
    await system.engine.start()
    for _ in range(_LOOKS):
        with system.database.write() as connection:
            connection.exec_driver_sql("UPDATE deliveries SET due_at = 0 WHERE due_at IS NOT NULL")
        system.engine.worker.wake()
        await system.engine.worker.idle()
        with system.database.read() as connection:
            states = set(connection.exec_driver_sql(_STATES).scalars())
        if "held" not in states:
            break
    await system.close_gateways()
    return states


THREE_LINES = """
from handbell import PushNotification
push = PushNotification()
push.send({"title": "Hello", "body": "It rings"}, "test@4d.com", send_at="2030-01-01T00:00:00Z")
"""
"""The README's three lines, as they return at once whatever Apple does. The worker has begun."""

ENDS = {
    "the end": ("", 0, ""),
    "an exception": ("raise ValueError('mine')", 1, "ValueError: mine"),
    "sys.exit": ("import sys; sys.exit(3)", 3, ""),
    "sys.exit with a text": ("import sys; sys.exit('mine')", 1, "mine"),
    "SIGTERM": ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15, ""),
    "an interruption": ("raise KeyboardInterrupt", -2, "KeyboardInterrupt"),
    "two doors and sessions": (
        """
from handbell import Sessions
another, sessions = PushNotification(), Sessions()
assert sessions.all_mail_addresses() == ["test@4d.com"]
push.close()
""",
        0,
        "",
    ),
    "a forked child": (
        """
import os
if pid := os.fork():
    assert os.waitpid(pid, 0)[1] == 0
""",
        0,
        "",
    ),
    "a forked child that sends": (
        """
import os
pid = os.fork()
push.send({"title": "Again"}, "test@4d.com", send_at="2030-01-01T00:00:00Z")
if pid:
    assert os.waitpid(pid, 0)[1] == 0
""",
        0,
        "",
    ),
    "multiprocessing": (
        """
import multiprocessing
def send():
    push.send({"title": "Again"}, "test@4d.com", send_at="2030-01-01T00:00:00Z")
made = [multiprocessing.get_context("fork").Process(target=send) for _ in range(2)]
for one in made: one.start()
for one in made: one.join()
assert [one.exitcode for one in made] == [0, 0]
""",
        0,
        "",
    ),
    "threads that still send": (
        """
import threading
def send():
    for _ in range(3):
        push.send({"title": "Again"}, "test@4d.com", send_at="2030-01-01T00:00:00Z")
for _ in range(3): threading.Thread(target=send).start()
""",
        0,
        "",
    ),
    "a pool that still sends": (
        """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(3)
for _ in range(6):
    pool.submit(push.send, {"title": "x"}, "test@4d.com", send_at="2030-01-01T00:00:00Z")
""",
        0,
        "",
    ),
    "daemon threads in the midst of it": (
        """
import threading
def send():
    while True:
        push.send({"title": "Again"}, "test@4d.com")
        begun.release()
begun = threading.Semaphore(0)
for _ in range(3): threading.Thread(target=send, daemon=True).start()
begun.acquire(timeout=0.3)
""",
        0,
        "",
    ),
    "a hook that is at it": (
        """
import threading, time
reached = threading.Event()
def hook(event):
    reached.set()
    time.sleep(60)
push.add_hook(hook)
for _ in range(2):
    threading.Thread(target=push.send, args=({"title": "x"}, "test@4d.com"), daemon=True).start()
reached.wait()
""",
        0,
        "",
    ),
    "a callback of atexit that sends": (
        """
import atexit
atexit.register(push.send, {"title": "x"}, "test@4d.com", send_at="2030-01-01T00:00:00Z")
""",
        0,
        "",
    ),
    "asyncio.run beside it": (
        """
import asyncio
from handbell import AsyncPushNotification
other = AsyncPushNotification()
for _ in range(2):
    asyncio.run(other.send({"title": "x"}, "test@4d.com", send_at="2030-01-01T00:00:00Z"))
""",
        0,
        "",
    ),
    "asyncio.run that is left": (
        """
import asyncio
from handbell import AsyncPushNotification
async def main():
    other = AsyncPushNotification()
    sending = asyncio.create_task(other.send({"title": "x"}, "test@4d.com"))
    await other.send({"title": "x"}, "test@4d.com", send_at="2030-01-01T00:00:00Z")
    raise SystemExit(3)
asyncio.run(main())
""",
        3,
        "",
    ),
    "a loop that nobody closes": (
        """
import asyncio
from handbell import AsyncPushNotification
loop = asyncio.new_event_loop()
loop.run_until_complete(AsyncPushNotification().send(
    {"title": "x"}, "test@4d.com", send_at="2030-01-01T00:00:00Z"))
""",
        0,
        "",
    ),
    "a loop in a daemon thread": (
        """
import asyncio, threading
from handbell import AsyncPushNotification
sent = threading.Event()
async def main():
    other = AsyncPushNotification()
    while True:
        await other.send({"title": "x"}, "test@4d.com", send_at="2030-01-01T00:00:00Z")
        sent.set()
threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
sent.wait()
""",
        0,
        "",
    ),
}

LOCKED = """
import subprocess, sys
code = '''
import os, sqlite3, sys
path = os.environ["HANDBELL_HOME"] + "/handbell.db"
raw = sqlite3.connect(path, isolation_level=None, timeout=30)
raw.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
'''
holder = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1)
assert holder.stdout.readline() == b"held\\n"
import warnings; warnings.simplefilter("ignore", ResourceWarning)
"""
"""Has another process hold the database until this one has ended."""

WITHOUT_A_SEND = ("the end", "an exception", "sys.exit", "SIGTERM", "an interruption")
"""What a locked database lets end: the others send once more, and it does not take that."""

HANDED_BACK = set(ENDS) - {"SIGTERM", "a hook that is at it", "a loop that nobody closes"}
HANDED_BACK -= {"a loop in a daemon thread"}


# A fixture of the module is made anew for each set of values that is given together with its own.
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("place", ["calm", "due", "capped", "silent", "overloaded"], indirect=True)
def test_a_program_ends_soon_and_in_silence(place: Place, end: str) -> None:
    """Without close(), it says nothing of ours, has its own exit code, and keeps no work."""
    script, code, said = ENDS[end]
    _check_end(place, script, code, said)
    if end in HANDED_BACK and place.state in ("calm", "due"):
        assert place.taken == 0
    # What there was no time for is free even so, for whoever works next.
    place.system.known_workers.reclaim()
    assert place.taken == 0


@pytest.mark.parametrize("end", WITHOUT_A_SEND)
@pytest.mark.parametrize("place", ["locked"], indirect=True)
def test_a_program_ends_beside_a_locked_database(place: Place, end: str) -> None:
    """Another process holds the database meanwhile; what was taken is free afterwards."""
    script, code, said = ENDS[end]
    _check_end(place, f"{LOCKED}\n{script}", code, said)
    place.system.known_workers.reclaim()
    assert place.taken == 0


def _check_end(place: Place, script: str, code: int, said: str) -> None:
    began = time.monotonic()
    left = place.run(f"{THREE_LINES}\n{script}")
    assert (left.code, left.out) == (code, "")
    assert _own_words(left.err) == said
    assert time.monotonic() - began < SOON


def _own_words(err: str) -> str:
    """Return the last line of the script's own traceback; all of it if there is more than that."""
    if re.fullmatch(r"Traceback \(most recent call last\):\n(  .*\n)+[^\s].*\n", err):
        return err.splitlines()[-1]
    return err.rstrip("\n")


BLOCKED = """
from handbell import PushNotification
push = PushNotification()
print("sending", flush=True)
push.send({"title": "Hello"}, "test@4d.com")
"""
BLOCKED_IN_A_LOOP = """
import asyncio, warnings
warnings.simplefilter("ignore", ResourceWarning)  # where asyncio.run itself is interrupted
from handbell import AsyncPushNotification
async def main():
    async with AsyncPushNotification() as push:
        print("sending", flush=True)
        await push.send({"title": "Hello"}, "test@4d.com")
asyncio.run(main())
"""
BLOCKED_BY_A_HOOK = """
from handbell import PushNotification
import threading, time
push = PushNotification()
push.add_hook(lambda event: time.sleep(60))
print("sending", flush=True)
push.send({"title": "Hello"}, "test@4d.com")
"""


@pytest.mark.parametrize("place", ["silent"], indirect=True)
@pytest.mark.parametrize(
    ("script", "times"),
    [
        *((script, times) for script in (BLOCKED, BLOCKED_BY_A_HOOK) for times in (1, 2, 5)),
        # A third one interrupts asyncio.run itself, which then tells of the script's own task.
        *((BLOCKED_IN_A_LOOP, times) for times in (1, 2)),
    ],
)
def test_an_interruption_is_soon_over(place: Place, script: str, times: int) -> None:
    """Ctrl-C in a send that gets no answer says KeyboardInterrupt, and the next ones no more."""
    place.leave_due()
    before = place.ask("SELECT count(*) FROM notifications")
    began, running = time.monotonic(), place.leaver.start(script)
    while not (running.out and place.ask("SELECT count(*) FROM notifications") > before):
        assert time.monotonic() - began < SOON
        time.sleep(0.02)
    for _ in range(times):
        with suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGINT)
        time.sleep(0.1)
    left = running.left()
    # runpy, under which the scripts run here, makes 1 of it at some moments.
    assert left.code in (-signal.SIGINT, 1)
    assert left.err.splitlines()[-1] == "KeyboardInterrupt"
    assert not re.search(r"destroyed|ignored|never awaited|handbell\.errors|unclosed", left.err)
    assert time.monotonic() - began < SOON
    if times == 1 and script is not BLOCKED_BY_A_HOOK:
        assert place.taken == 0


ODD = {
    "a first send at exit": (
        """
import atexit
from handbell import HandbellError, PushNotification
@atexit.register
def late():
    try:
        PushNotification()
    except HandbellError as error:
        print(error)
""",
        (
            "The program ends, so nothing can be sent any more. "
            "Send before that: not in a callback of atexit."
        ),
    ),
    "a send after the doors are shut": (
        """
import subprocess, sys
code = '''
import atexit
@atexit.register
def late():
    try:
        push.send({"title": "x"}, "test@4d.com")
    except HandbellError as error:
        print(error.code)
from handbell import HandbellError, PushNotification
push = PushNotification()
'''
run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
print(run.stderr + run.stdout)
""",
        "sender-stopped",
    ),
    "a first send in a thread that outlives the main one": (
        """
import threading
from handbell import PushNotification
def send():
    threading.main_thread().join()
    print(PushNotification().send({"title": "x"}, "test@4d.com").success)
threading.Thread(target=send).start()
""",
        "True",
    ),
    "a call within a hook": (
        """
from handbell import HandbellError, PushNotification, Sessions
push = PushNotification()
told = set()
def hook(event):
    for call in (push.close, PushNotification, lambda: push.send({"title": "x"}, "test@4d.com")):
        try:
            call()
        except HandbellError as error:
            told.add(error.code)
    told.add(tuple(Sessions().all_mail_addresses()))
push.add_hook(hook)
assert push.send({"title": "x"}, "test@4d.com").success
print(sorted(map(str, told)))
""",
        """["('test@4d.com',)", 'deadlock']""",
    ),
    "a hook that comes after the first send": (
        """
from handbell import PushNotification
push = PushNotification()
push.send({"title": "x"}, "test@4d.com")
told = []
push.add_hook(lambda event: told.append(type(event).__name__))
push.send({"title": "x"}, "test@4d.com")
print(told)
""",
        "['NotificationAccepted', 'PushesSent']",
    ),
    "a hook that ends the program": (
        """
import logging, sys
from handbell import PushNotification
logging.disable()
push = PushNotification()
push.add_hook(lambda event: sys.exit(4))
print(push.send({"title": "x"}, "test@4d.com").success)
""",
        "True",
    ),
    "loops that are closed under us": (
        """
import asyncio, warnings
from handbell import AsyncPushNotification
warnings.simplefilter("ignore", ResourceWarning)  # of its own: nothing was closed
push = AsyncPushNotification()
for _ in range(6):
    loop = asyncio.new_event_loop()
    print(loop.run_until_complete(push.send({"title": "x"}, "test@4d.com")).success)
    loop.close()
import os, sqlite3
raw = sqlite3.connect(os.environ["HANDBELL_HOME"] + "/handbell.db")
mine = raw.execute("SELECT count(*) FROM workers WHERE pid = ?", [os.getpid()]).fetchone()[0]
print(mine <= 2)  # the last one's, and one that is being given back
raw.close()
""",
        "\n".join(["True"] * 7),
    ),
    "a process that was spawned by one that sends": (
        """
import subprocess, sys
from handbell import PushNotification
push = PushNotification()
push.send({"title": "x"}, "test@4d.com")
code = '''
from handbell import PushNotification
print(PushNotification().send({"title": "x"}, "test@4d.com").success)
'''
run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
print(run.stderr + run.stdout)
""",
        "True",
    ),
}


@pytest.mark.parametrize("place", ["calm"], indirect=True)
@pytest.mark.parametrize("case", ODD)
def test_odd_moments_have_their_answer(place: Place, case: str) -> None:
    """Where a send cannot be made, an error of ours says so; all else works, and in silence."""
    script, told = ODD[case]
    left = place.leaver.run(script)
    assert (left.code, left.err) == (0, "")
    assert left.out.strip() == told
