"""The programs that are measured, and how each is built and run."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.gateways.apns.compose import compose

from . import seed
from .job import Job, Result
from .rig import Rig, RigError

ROOT: Final = Path(__file__).parents[1]
PEERS: Final = Path(__file__).parent / "peers"
LONGEST_SECONDS: Final = 900
H2LOAD: Final = "h2load, as good as it gets"
GATEWAY: Final = "Handbell's gateway"
ENGINE: Final = "Handbell's whole engine"
STANDARD: Final = ", standard loop"
GO: Final = "Go, sideshow/apns2"
AIOAPNS: Final = "Python, aioapns"
NODE: Final = "Node, apns2"
FCM_GATEWAY: Final = "FCM: Handbell's gateway"
FCM_ENGINE: Final = "FCM: Handbell's whole engine"
FIREBASE_THREADS: Final = "FCM: firebase-admin, send_each"
FIREBASE_ASYNC: Final = "FCM: firebase-admin, send_each_async"
PRIMITIVES: Final = "Web Push: its bare primitives"
WEB_PUSH_GATEWAY: Final = "Web Push: Handbell's gateway"
WEB_PUSH_ENGINE: Final = "Web Push: Handbell's whole engine"
PYWEBPUSH: Final = "Web Push: pywebpush"
PYWEBPUSH_ASYNC: Final = "Web Push: pywebpush, async"
FIREBASE_ADMIN_LOCK: Final = (
    ROOT / "tests" / "contract" / "clients" / "firebase-admin" / "requirements.txt"
)

_FINISHED: Final = re.compile(r"finished in .*?, ([\d.]+) req/s")
_CODES: Final = re.compile(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx")


@dataclass(frozen=True, slots=True)
class Program:
    """One line of the table: a name, how many pushes make a round, and how a round is run."""

    name: str
    count: int
    run: Callable[[Job], Result]
    in_flight: int = 200
    loop: str = "uvloop"


def measured(rig: Rig, program: Program, sink: str) -> Result:
    """Return one round of a program against a sink, with what the sink used of its core.

    Raises :class:`~bench.rig.RigError` when the program fails, or does not account for each push.
    """
    job = replace(rig.job(sink, program.count), in_flight=program.in_flight, loop=program.loop)
    before = rig.sink_cpu()
    result = program.run(job)
    if result.pushes != program.count:
        raise RigError(f"{program.name} answered for {result.pushes} of {program.count} pushes")
    return replace(result, sink_cpu=rig.sink_cpu() - before)


def gateway(job: Job) -> Result:
    """Run a round of Handbell's gateway alone."""
    return Result.read(output([sys.executable, "-m", "bench.ours", "gateway", job.text()]))


def fcm_gateway(job: Job) -> Result:
    """Run a round of Handbell's gateway to FCM alone."""
    return Result.read(output([sys.executable, "-m", "bench.ours", "fcm", job.text()]))


def primitives(job: Job) -> Result:
    """Run what encrypts the messages, and nothing else."""
    return Result.read(output([sys.executable, "-m", "bench.ours", "primitives", job.text()]))


def web_push_gateway(job: Job) -> Result:
    """Run a round of Handbell's gateway to push services of browsers alone."""
    return Result.read(output([sys.executable, "-m", "bench.ours", "webpush", job.text()]))


def pywebpush(way: str) -> Callable[[Job], Result]:
    """Return what runs a round of pywebpush: ``session`` or ``async``."""

    def run(job: Job) -> Result:
        trust = {"REQUESTS_CA_BUNDLE": job.ca_file, "SSL_CERT_FILE": job.ca_file}
        command = [sys.executable, "-m", "bench.peers.pywebpush_client", way, job.text()]
        return Result.read(output(command, environment=trust))

    return run


def engine_over(home: Path) -> Callable[[Job], Result]:
    """Return what runs a broadcast over a fresh copy of a home each time."""

    def run(job: Job) -> Result:
        copy = seed.copy_home(home, home.with_name("round"))
        job = replace(job, home=str(copy))
        return Result.read(output([sys.executable, "-m", "bench.ours", "engine", job.text()]))

    return run


def aioapns(job: Job) -> Result:
    """Run a round of aioapns."""
    return Result.read(output([sys.executable, "-m", "bench.peers.aioapns_client", job.text()]))


def build_firebase_admin(folder: Path) -> dict[str, Callable[[Job], Result]]:
    """Install firebase-admin into the folder, and return what runs it: in threads, or async."""
    output([sys.executable, "-m", "venv", str(folder)])
    python = str(folder / "bin" / "python")
    quiet = ["--quiet", "--disable-pip-version-check", "--require-hashes"]
    output([python, "-m", "pip", "install", *quiet, "-r", str(FIREBASE_ADMIN_LOCK)])

    def runs(way: str) -> Callable[[Job], Result]:
        def run(job: Job) -> Result:
            trust = {"REQUESTS_CA_BUNDLE": job.ca_file, "SSL_CERT_FILE": job.ca_file}
            command = [python, "-m", "bench.peers.firebase_admin_client", way, job.text()]
            return Result.read(output(command, environment=trust))

        return run

    return {FIREBASE_THREADS: runs("threads"), FIREBASE_ASYNC: runs("async")}


def build_go(folder: Path) -> Callable[[Job], Result]:
    """Build the program around Go's apns2, and return what runs it."""
    shutil.copytree(PEERS / "apns2", folder)
    output(["go", "build", "-o", "program", "."], folder=folder)
    return lambda job: Result.read(output([str(folder / "program"), job.text()]))


def build_go_server(folder: Path) -> Path:
    """Build the send server around Go's apns2, and return the program."""
    shutil.copytree(PEERS / "gosend", folder)
    output(["go", "build", "-o", "program", "."], folder=folder)
    return folder / "program"


def build_node(folder: Path) -> Callable[[Job], Result]:
    """Install node's apns2 into the folder, and return what runs the program around it."""
    shutil.copytree(PEERS / "node-apns2", folder)
    quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    output(["npm", "install", *quiet], folder=folder)
    return lambda job: Result.read(output(["node", str(folder / "main.mjs"), job.text()]))


def h2load(job: Job) -> Result:
    """Run h2load with the same requests, of which it reads no more than the status."""
    folder = Path(job.tokens).parent
    addresses, body = folder / "addresses", folder / "body"
    if not body.exists():
        body.write_bytes(_payload(job))
    tokens = job.read_tokens()[: job.count]
    addresses.write_text("".join(f"{job.url}/3/device/{token}\n" for token in tokens))
    headers = {
        "authorization": "bearer " + "0" * 180,
        "apns-topic": job.topic,
        "apns-push-type": "alert",
        "apns-priority": "10",
        "content-type": "application/json",
    }
    command = ["h2load", "-n", str(job.count), "-c", "1", "-t", "1", "-m", str(job.in_flight)]
    command += ["-i", str(addresses), "-d", str(body)]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    before = _children_seconds()
    said = output(command)
    return _read_h2load(said, _children_seconds() - before)


def pinned(path: Path, package: str) -> str:
    """Return the version of a package that a peer's ``package.json`` names."""
    return str(json.loads(path.read_text())["dependencies"][package])


def _payload(job: Job) -> bytes:
    notification = Notification.read({"title": job.title, "body": job.body})
    return compose(notification, app=App(team_id="TEAM123456", bundle_id=job.topic), now=0).payload


def _read_h2load(said: str, cpu_seconds: float) -> Result:
    rate, codes = _FINISHED.search(said), _CODES.search(said)
    if rate is None or codes is None:
        raise RigError(f"h2load said something unexpected: {said[-500:]}")
    accepted, *refused = (int(number) for number in codes.groups())
    return Result(
        accepted=accepted,
        refused=sum(refused),
        seconds=(accepted + sum(refused)) / float(rate[1]),
        cpu_seconds=cpu_seconds,
    )


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def output(
    command: list[str], *, folder: Path = ROOT, environment: dict[str, str] | None = None
) -> str:
    """Return what a command writes. Raises :class:`~bench.rig.RigError` when it fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=folder,
            env=os.environ | (environment or {}),
            timeout=LONGEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RigError(f"{command[0]} took longer than {LONGEST_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        named = " ".join(command[:4]).partition(" {")[0]  # without the job
        raise RigError(f"{named} failed with {done.returncode}: {said[-1]}")
    return done.stdout
