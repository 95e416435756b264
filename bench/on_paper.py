"""On paper, to a billion devices: what each part needs, and where it ends.

``python -m bench.on_paper`` prints the table and draws ``bench/on_paper.svg``. Nothing is measured
here. :data:`MEASURED` is what the bench measured on one machine of two cores, of whose cores all
figures of CPU are; :data:`LIMITS` is what one of each part is assumed to bear. Both are parameters:
put in your own. docs/decisions/0036-to-a-billion-devices.md reads the result.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PLOT: Final = Path(__file__).with_suffix(".svg")
DEVICES: Final = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the bench measured, per session or per push; CPU in microseconds, sizes in bytes.

    A broadcast: ``worker_cpu``, ``database_cpu`` and ``broker_cpu`` of a push through PostgreSQL
    and JetStream, ``wal`` what it writes ahead, ``delivery`` what it leaves on the disk. A personal
    send: ``send_cpu`` of server and worker, ``send_database_cpu``, ``send_wal`` and ``send``.
    """

    session: float = 646
    worker_cpu: float = 15.5
    database_cpu: float = 7.0
    broker_cpu: float = 0.7
    wal: float = 327
    delivery: float = 164
    send_cpu: float = 150
    send_database_cpu: float = 48
    send_wal: float = 1500
    send: float = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What an installation is asked to do.

    Every day one broadcast to all within ``minutes``, and ``personal`` sends to each device, of
    which ``peak`` times the mean come in the busiest hour. ``android`` is their share; ledgers are
    kept for ``days``.
    """

    minutes: float = 10
    personal: float = 2
    peak: float = 3
    android: float = 0.5
    days: int = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one of each part bears.

    ``wal`` is the bytes a second that one PostgreSQL writes ahead with replicas, ``cores`` those of
    its machine, ``disk`` the bytes on it. ``connection`` is the pushes a second of one connection
    to Apple: streams over the time to an answer. ``project`` is FCM's default quota a second.
    ``core_hour`` and ``gigabyte_month`` are prices in dollars.
    """

    wal: float = 200e6
    cores: float = 32
    disk: float = 4e12
    connection: float = 1000 / 0.06
    project: float = 600_000 / 60
    core_hour: float = 0.04
    gigabyte_month: float = 0.1


MEASURED: Final = Measured()
WORKLOAD: Final = Workload()
LIMITS: Final = Limits()
_SPARE: Final = 0.6
"""How much of a core or a disk is planned to be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What so many devices need. Rates are a second, at the peak."""

    devices: int
    pushes: float
    sends: float
    worker_cores: float
    server_cores: float
    database_cores: float
    wal: float
    registry: float
    ledger: float
    messages: float
    connections: float
    fcm_minutes: float
    databases: float
    cost: float


def plan(
    devices: int,
    measured: Measured = MEASURED,
    workload: Workload = WORKLOAD,
    limits: Limits = LIMITS,
) -> Plan:
    """Return what an installation of a size needs."""
    pushes = devices / (60 * workload.minutes)
    sends = devices * workload.personal / 86_400 * workload.peak
    database = (pushes * measured.database_cpu + sends * measured.send_database_cpu) / 1e6
    wal = pushes * measured.wal + sends * measured.send_wal
    registry = devices * measured.session
    a_day = devices * (measured.delivery + workload.personal * measured.send)
    ledger = a_day * workload.days
    worker_cores = pushes * measured.worker_cpu / 1e6 / _SPARE
    server_cores = sends * measured.send_cpu / 1e6 / _SPARE
    database_cores = database / _SPARE
    parts = (
        database_cores / limits.cores,
        wal / (limits.wal * _SPARE),
        (registry + ledger) / (limits.disk * _SPARE),
    )
    millions_a_day = devices * (1 + workload.personal) / 1e6
    cpu_seconds_a_day = (
        devices
        * (
            measured.worker_cpu
            + measured.database_cpu
            + measured.broker_cpu
            + workload.personal * (measured.send_cpu + measured.send_database_cpu)
        )
        / (1e6 * _SPARE)
    )
    disk_a_day = (registry + ledger) / 1e9 * limits.gigabyte_month / 30
    cost = (cpu_seconds_a_day / 3600 * limits.core_hour + disk_a_day) / millions_a_day
    return Plan(
        devices=devices,
        pushes=pushes,
        sends=sends,
        worker_cores=worker_cores,
        server_cores=server_cores,
        database_cores=database_cores,
        wal=wal,
        registry=registry,
        ledger=ledger,
        messages=pushes / 10_000 + sends / 30,
        connections=math.ceil(pushes * (1 - workload.android) / limits.connection),
        fcm_minutes=devices * workload.android / limits.project / 60,
        databases=max(1.0, *parts),
        cost=cost,
    )


_COLUMNS: Final[Sequence[tuple[str, Callable[[Plan], str]]]] = (
    ("devices", lambda one: f"{one.devices:,}"),
    ("pushes/s", lambda one: f"{one.pushes:,.0f}"),
    ("sends/s", lambda one: f"{one.sends:,.0f}"),
    ("worker cores", lambda one: f"{one.worker_cores:,.1f}"),
    ("server cores", lambda one: f"{one.server_cores:,.1f}"),
    ("database cores", lambda one: f"{one.database_cores:,.1f}"),
    ("WAL MB/s", lambda one: f"{one.wal / 1e6:,.0f}"),
    ("registry GB", lambda one: f"{one.registry / 1e9:,.0f}"),
    ("ledger GB", lambda one: f"{one.ledger / 1e9:,.0f}"),
    ("broker msg/s", lambda one: f"{one.messages:,.0f}"),
    ("to Apple", lambda one: f"{one.connections:,.0f}"),
    ("FCM minutes", lambda one: f"{one.fcm_minutes:,.0f}"),
    ("databases", lambda one: f"{one.databases:,.1f}"),
    ("$ a million", lambda one: f"{one.cost:,.3f}"),
)


def table(plans: Sequence[Plan]) -> str:
    """Return the plans as a table in Markdown."""
    header = [name for name, _ in _COLUMNS]
    rows = [[show(one) for _, show in _COLUMNS] for one in plans]
    lines = [header, ["--:"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 760, 420, 70, 60, 220, 50
_STYLE: Final = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.note { fill: #59636e }
.grid { stroke: #d1d9e0 } .limit { stroke: #b3261e; stroke-width: 1.5; stroke-dasharray: 5 4 }
.line { fill: none; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #9198a1 } .grid { stroke: #3d444d }
}"""
_COLOURS: Final = ("#0a6c74", "#8250df", "#bc4c00", "#9a6700", "#57606a")
_LINE_HEIGHT: Final = 15.0


def _disk(one: Plan, days: int) -> float:
    """Return the share of one machine's disk that registry and ledger take."""
    ledger = one.ledger / WORKLOAD.days * days
    return (one.registry + ledger) / (LIMITS.disk * _SPARE)


def draw(points: Sequence[Plan]) -> str:
    """Return the plot, as SVG: how much of what one PostgreSQL bears each size needs."""
    limits = LIMITS
    lines: dict[str, Callable[[Plan], float]] = {
        "database cores": lambda one: one.database_cores / limits.cores,
        "what it writes ahead": lambda one: one.wal / (limits.wal * _SPARE),
        "disk, a ledger of 90 days": lambda one: _disk(one, 90),
        "disk, a ledger of 7 days": lambda one: _disk(one, 7),
        "FCM's default quota": lambda one: one.fcm_minutes / WORKLOAD.minutes,
    }
    low, high = -3.0, 2.5
    first, last = math.log10(points[0].devices), math.log10(points[-1].devices)

    def x(devices: float) -> float:
        width = _WIDTH - _LEFT - _RIGHT
        return _LEFT + width * (math.log10(devices) - first) / (last - first)

    def y(share: float) -> float:
        height = _HEIGHT - _TOP - _BOTTOM
        place = (min(high, max(low, math.log10(share))) - low) / (high - low)
        return _HEIGHT - _BOTTOM - height * place

    drawn = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            f'width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-labelledby="title">'
        ),
        '<title id="title">What one PostgreSQL bears, by the number of devices</title>',
        f"<style>{_STYLE}\n</style>",
        (
            '<text class="title" x="12" y="24">Where one PostgreSQL ends, by the number of devices'
            "</text>"
        ),
        (
            '<text class="note" x="12" y="44">A share of what one bears; a broadcast to all within '
            "ten minutes, two sends a day to each</text>"
        ),
    ]
    for power in range(-3, 3):
        drawn.append(
            f'<line class="{"limit" if not power else "grid"}" x1="{_LEFT}" '
            f'x2="{_WIDTH - _RIGHT}" y1="{y(10**power):.1f}" y2="{y(10**power):.1f}"/>'
        )
        drawn.append(
            f'<text class="note" x="{_LEFT - 8}" y="{y(10**power) + 4:.1f}" text-anchor="end">'
            f"{10**power:g}</text>"
        )
    drawn += [
        (
            f'<text class="note" x="{x(devices):.1f}" y="{_HEIGHT - _BOTTOM + 22}" '
            f'text-anchor="middle">{devices // 1_000_000:,} million</text>'
        )
        for devices in DEVICES
    ]
    lowest = float(_HEIGHT)
    last_of = {name: share(points[-1]) for name, share in lines.items()}
    for name in sorted(lines, key=last_of.__getitem__):
        colour = _COLOURS[list(lines).index(name)]
        path = " ".join(f"{x(one.devices):.1f},{y(lines[name](one)):.1f}" for one in points)
        # Names that would stand on each other are moved apart.
        lowest = min(y(last_of[name]) + 4, lowest - _LINE_HEIGHT)
        drawn.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        drawn.append(f'<text x="{_WIDTH - _RIGHT + 8}" y="{lowest:.1f}">{name}</text>')
    return "\n".join([*drawn, "</svg>", ""])


def main() -> None:
    """Print the table, and draw the plot."""
    plans = [plan(devices) for devices in DEVICES]
    print(table(plans))
    points = [plan(round(10 ** (6 + step / 10))) for step in range(31)]
    PLOT.write_text(draw(points), encoding="utf-8")
    print(f"Drawn in {PLOT}")


if __name__ == "__main__":
    main()
