"""What was measured, as tables: for the terminal and for RESULTS.md."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.table import Table as RichTable

from .figures import Figure, ratio
from .forms import FormFigure
from .loads import APPS, DEVICES, ZONES, Step
from .measure import Latency, Start
from .programs import AIOAPNS, FIREBASE_THREADS, GO, PYWEBPUSH
from .rig import SLOW_SECONDS, SLOW_STREAMS
from .scaling import STREAMS, Fleet
from .server import CONNECTIONS, Accepted
from .shared_database import Lookup, Taken

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header, rows of text, and what has to be known to read them."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = field(default=())

    def markdown(self) -> str:
        """Return the table as Markdown: names to the left, figures to the right."""
        lines = [_line(self.header), _line((":--", *["--:"] * (len(self.header) - 1)))]
        lines += [_line(row) for row in self.rows]
        return "\n".join([f"## {self.title}", "", *lines, "", *self.notes]).rstrip() + "\n"

    def show(self, console: Console) -> None:
        """Print the table to the terminal."""
        table = RichTable(title=self.title, title_justify="left", caption_justify="left")
        for number, name in enumerate(self.header):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table, *self.notes, "", sep="\n")


def throughput(figures: Sequence[Figure]) -> Table:
    """Return the main table: all programs side by side, with their ratios to the peers."""
    rates = {each.name: each.rate for each in figures}
    rows = [
        (
            *_rates(each),
            ratio(each.rate, rates.get(GO)),
            ratio(each.rate, rates.get(AIOAPNS)),
            f"{each.cpu:.1f}",
            f"{each.sink_busy:.0%}",
            str(each.rounds),
        )
        for each in figures
    ]
    header = (*_RATES, "x Go", "x aioapns", "CPU us/push", "sink busy", "rounds")
    return Table("Throughput", header, rows, (_THROUGHPUT_NOTE,))


_LIBRARY: Final = {"FCM": FIREBASE_THREADS, "Web Push": PYWEBPUSH}


def services(figures: Sequence[Figure]) -> Table:
    """Return the table of the other push services, each beside its own library."""
    rates = {each.name: each.rate for each in figures}
    rows = [
        (
            *_rates(each),
            ratio(each.rate, rates.get(_LIBRARY[each.name.partition(":")[0]])),
            f"{each.cpu:.1f}",
            f"{each.sink_busy:.0%}",
            str(each.rounds),
        )
        for each in figures
    ]
    header = (*_RATES, "x its library", "CPU us/push", "sink busy", "rounds")
    note = (
        "FCM's sink gives access tokens and answers each message at once. firebase-admin is called "
        "with 500 messages at a time, the most that it takes, and the first of its two ways is the "
        "one to compare with. The engine's devices live on a twin, in whose place the sink stands: "
        "to Google itself it would rise to 10,000 a second within a minute, and no further. The "
        "sink of Web Push answers 201 to each; its bare primitives are a new key pair, the key "
        "agreement, five HMACs and AES-GCM for each message, without a network. pywebpush keeps "
        "its connection, and sends one message after the other, or 100 at once; the first way is "
        "the one to compare with."
    )
    return Table("Other push services", header, rows, (note,))


def slow(figures: Sequence[Figure]) -> Table:
    """Return the table of the sink that takes its time."""
    most = SLOW_STREAMS / SLOW_SECONDS
    rows = [(*_rates(each), f"{each.rate / most:.0%}", f"{each.cpu:.1f}") for each in figures]
    title = f"A sink that answers after {SLOW_SECONDS * 1000:.0f} ms, {SLOW_STREAMS} streams"
    note = (
        f"{SLOW_STREAMS} streams and {SLOW_SECONDS * 1000:.0f} ms allow {most:,.0f} a second on "
        "one connection. Handbell opens a second one where the first is full, Go keeps to one."
    )
    return Table(title, (*_RATES, "of one connection", "CPU us/push"), rows, (note,))


def refusing(figures: Sequence[Figure], fast: Sequence[Figure]) -> Table:
    """Return the table of the sink that refuses 2 %, beside the sink that takes all."""
    before = {each.name: each.rate for each in fast}
    rows = [
        (*_rates(each), f"{each.refused:.1%}", ratio(each.rate, before.get(each.name)))
        for each in figures
    ]
    header = (*_RATES, "not taken", "x its rate above")
    note = (
        "Refused: 0.8 % Unregistered, 0.4 % BadDeviceToken, 0.3 % ExpiredToken, 0.3 % "
        "ServiceUnavailable, 0.2 % TooManyRequests; the last two only for now."
    )
    return Table("A sink that refuses 2 %", header, rows, (note,))


def mixed(figures: Sequence[Figure]) -> Table:
    """Return the table of one broadcast to devices of all push services."""
    return memory(figures, "One broadcast to iPhones, Android phones and browsers, a third each")


def memory(
    figures: Sequence[Figure], title: str = "One broadcast of the whole engine, by its size"
) -> Table:
    """Return the table of one broadcast to ever more sessions, compared with the smallest."""
    first = figures[0]
    rows = [
        (
            each.name,
            f"{each.pushes / each.rate:,.1f}",
            f"{each.microseconds:.1f}",
            ratio(each.microseconds, first.microseconds),
            f"{each.peak_bytes / MIB:.0f}",
            ratio(each.peak_bytes, first.peak_bytes),
            str(each.rounds),
        )
        for each in figures
    ]
    header = ("sessions", "seconds", "us/push", "x first", "peak MiB", "x first", "rounds")
    return Table(title, header, rows)


def latency(figures: Sequence[Latency], start: Start) -> list[Table]:
    """Return the tables of one person's push, and of a fresh process."""
    rows = [
        (each.name, *(f"{ms:.2f}" for ms in (*each.to_sink, *each.to_return)), str(each.samples))
        for each in figures
    ]
    header = ("ms from send()", "sink p50", "sink p99", "return p50", "return p99", "pushes")
    note = (
        "From stored sessions to stored outcome, one at a time. Cold: neither the database nor a "
        "connection is open."
    )
    fresh = (f"{start.imported:.0f}", f"{start.at_sink:.0f}", f"{start.returned:.0f}")
    return [
        Table("One person", header, rows, (note,)),
        Table(
            "A fresh process",
            ("median ms from the first line", "handbell imported", "push at the sink", "returned"),
            [(f"of {start.samples} processes", *fresh)],
        ),
    ]


def accepting(found: Sequence[tuple[str, Sequence[Accepted]]]) -> Table:
    """Return the table of what the send server accepts over HTTP."""
    rows = [
        (
            f"{one.name}, {name}",
            f"{one.rate:,.0f}",
            f"{one.p50:.1f}",
            f"{one.p99:.1f}",
            f"{one.cpu:.0f}",
            f"{one.sends:,}",
        )
        for name, figures in found
        for one in figures
    ]
    header = ("", "sends/s", "ms p50", "ms p99", "server CPU us", "sends")
    return Table("The send server, SQLite, each send durable", header, rows, (_SERVER_NOTE,))


def single_calls(figures: Sequence[FormFigure]) -> Table:
    """Return the table of single calls in every form."""
    rows = [
        (
            f"{one.form}: {one.name}",
            f"{one.cpu:.0f}",
            f"{one.rate:,.0f}",
            f"{one.p50:.1f}",
            f"{one.p99:.1f}",
            f"{one.pushes:.1f}",
            f"{one.sends:,}",
        )
        for one in figures
    ]
    header = ("", "CPU us/send", "sends/s", "ms p50", "ms p99", "pushes each", "sends")
    return Table("Single calls of every form, to the end", header, rows, (_CALLS_NOTE,))


def lines(figures: Sequence[FormFigure]) -> Table:
    """Return the table of streams of lines in every form."""
    fastest = max(one.rate for one in figures)
    rows = [
        (
            one.form,
            f"{one.rate:,.0f}",
            f"{one.rate / fastest:.0%}",
            f"{one.cpu:.0f}",
            f"{one.pushes:.1f}",
        )
        for one in figures
    ]
    header = ("", "lines/s", "of the fastest", "CPU us/line", "pushes each")
    title = "One stream of lines of every form, a worker beside, to the end"
    return Table(title, header, rows, (_LINES_NOTE,))


def many_apps(steps: Sequence[Step]) -> Table:
    """Return the table of many small apps, each step compared with the same over one app."""
    one = {step.name.partition(",")[0]: step for step in steps if step.name.endswith("one app")}
    rows = [
        (
            step.name,
            f"{step.deliveries:,}",
            f"{step.seconds:.2f}",
            ratio(step.seconds, one[step.name.partition(",")[0]].seconds),
            f"{step.microseconds:.1f}",
            ratio(step.microseconds, one[step.name.partition(",")[0]].microseconds),
            f"{step.middle:.0f}" if step.middle else "-",
        )
        for step in steps
    ]
    header = ("", "pushes", "seconds", "x one app", "CPU us/push", "x one app", "ms p50")
    note = f"Apps of one team with one key; {APPS} have {DEVICES} devices each, one has them all."
    return Table("Many small apps", header, rows, (note,))


def waiting(steps: Sequence[Step]) -> Table:
    """Return the table of what waits, each step compared with the same sent at once."""
    at_once = {step.name.partition(",")[0]: step for step in steps if step.name.endswith("at once")}
    rows = [
        (
            step.name,
            f"{step.deliveries:,}",
            f"{step.seconds:.2f}",
            f"{step.deliveries / step.seconds:,.0f}",
            f"{step.microseconds:.1f}",
            ratio(step.microseconds, at_once[step.name.partition(",")[0]].microseconds),
            f"{step.rows:,}",
        )
        for step in steps
    ]
    header = ("", "deliveries", "seconds", "a second", "CPU us each", "x at once", "new rows")
    note = (
        f"Sessions in {len(ZONES)} time zones; what waits does so for a local time. A broadcast "
        "waits as shards, named recipients as rows."
    )
    return Table("What waits", header, rows, (note,))


def accepting_by_database(found: Sequence[Taken]) -> Table:
    """Return the table of what is accepted on each database."""
    rows = [
        (
            f"{one.accepted.name}, {one.database}",
            f"{one.accepted.rate:,.0f}",
            f"{one.accepted.p50:.1f}",
            f"{one.accepted.p99:.1f}",
            f"{one.accepted.cpu:.0f}",
            f"{one.database_cpu:.0f}" if one.database_cpu else "-",
        )
        for one in found
    ]
    header = ("", "sends/s", "ms p50", "ms p99", "server CPU us", "database CPU us")
    return Table("Accepting on SQLite and on PostgreSQL, each send durable", header, rows)


def sending_by_database(found: Sequence[tuple[str, str, FormFigure]]) -> Table:
    """Return the table of the whole engine on each database."""
    rows = [
        (
            f"{kind}, {side}",
            f"{one.rate:,.0f}",
            f"{one.cpu:.0f}",
            f"{one.database_cpu:.0f}" if one.database_cpu else "-",
            f"{one.pushes:.1f}",
        )
        for side, kind, one in found
    ]
    header = ("", "sends/s", "CPU us/send", "database CPU us", "pushes each")
    title = "SQLite and PostgreSQL, a mix of all forms, a worker beside, to the end"
    return Table(title, header, rows, (_LINES_NOTE,))


def lookups(found: Sequence[Lookup]) -> Table:
    """Return the table of look-ups in registries of two sizes."""
    small = {one.name: one for one in reversed(found)}
    rows = [
        (
            f"{one.name}, {one.sessions:,} sessions",
            f"{one.p50:.2f}",
            f"{one.p99:.2f}",
            ratio(one.p99, small[one.name].p99),
        )
        for one in sorted(found, key=lambda one: (one.name, one.sessions))
    ]
    header = ("", "ms p50", "ms p99", "p99 x the small one")
    return Table("Look-ups on PostgreSQL, by the number of sessions", header, rows)


def fleets(found: Sequence[Fleet]) -> Table:
    """Return the table of a broadcast by ever more workers."""
    first = found[0]
    rows = [
        (
            f"{one.workers}",
            f"{one.pushes:,}",
            f"{one.rate:,.0f}",
            ratio(one.rate, first.rate * one.workers),
            f"{one.cpu:.1f}",
            ratio(one.cpu, first.cpu),
            *_shares(one),
        )
        for one in found
    ]
    header = ("workers", "pushes", "pushes/s", "of so many times one", "CPU us/push", "x one")
    note = (
        f"A broadcast through PostgreSQL and NATS JetStream to a sink that answers after "
        f"{SLOW_SECONDS * 1000:.0f} ms; each worker has one connection and {STREAMS} streams on "
        f"it, so {STREAMS / SLOW_SECONDS:,.0f} a second are what it can do. All on one machine."
    )
    return Table("A fleet", (*header, *_SHARES), rows, (note,))


def costs(found: Sequence[Fleet]) -> Table:
    """Return the table of one worker that is bound by the CPU, on each engine."""
    first = found[0]
    rows = [
        (
            one.name,
            f"{one.rate:,.0f}",
            ratio(one.rate, first.rate),
            f"{one.cpu:.1f}",
            *_shares(one),
        )
        for one in found
    ]
    header = ("", "pushes/s", "x embedded", "CPU us/push", *_SHARES)
    return Table("One worker, a sink that answers at once", header, rows)


def _shares(fleet: Fleet) -> tuple[str, str, str]:
    parts = fleet.worker_cpu, fleet.database_cpu, fleet.broker_cpu
    worker, database, broker = (f"{1e6 * part / fleet.pushes:.1f}" for part in parts)
    return worker, database, broker


def document(
    tables: Sequence[Table],
    facts: Sequence[tuple[str, str]],
    remarks: str,
    *,
    run: str,
    former: str = "",
) -> str:
    """Return RESULTS.md: the tables of a ``run``, and those of the ``former`` ones it leaves.

    Below each table stands which run it is of.
    """
    lines = [f"- {name}: {value}" for name, value in facts]
    head = ["# Results of the bench", "", remarks, "", *lines, ""]
    parts = _parts(former)
    parts.update({table.title: f"{table.markdown()}\nRun: {run}.\n" for table in tables})
    return "\n".join([*head, *parts.values()])


def _parts(results: str) -> dict[str, str]:
    """Return the tables of a RESULTS.md with what stands below each, by their titles."""
    _, *parts = results.split("\n## ")
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}


_SERVER_NOTE: Final = (
    "Each send names another person and says something of its own. Single calls go over "
    f"{CONNECTIONS} connections kept alive, one at a time on each, from one process of raw "
    "sockets; a line's time begins when it is written, so a stream's is that of everything ahead "
    "of it. The clients share the machine's cores with the server, and with the sink where it "
    "sends."
)
_CALLS_NOTE: Final = (
    "`handbell serve` as it is installed, called by wrk over 16 connections: the CPU of the server "
    "and of all that it does for a send until its last push is answered and recorded. Each send "
    "names another person and says something of its own. The server in Go takes the same calls, "
    "hands them to apns2 through a channel, and keeps nothing."
)
_LINES_NOTE: Final = (
    "`handbell serve --no-worker` with `handbell worker` beside it: from the first line to the "
    "last outcome in the database, and the CPU of both."
)
_SHARES: Final = ("of the workers", "of PostgreSQL", "of NATS")
_RATES: Final = ("", "pushes/s", "slowest", "fastest")
_THROUGHPUT_NOTE: Final = (
    "Medians; the rounds were run in turn, each in a process of its own after a warm-up. The "
    "engine goes from stored sessions to stored outcomes in an SQLite file; the others are given "
    "tokens, and keep nothing. Handbell uses two connections, as by default, the others one."
)


def _rates(figure: Figure) -> tuple[str, str, str, str]:
    return (
        figure.name,
        f"{figure.rate:,.0f}",
        f"{figure.slowest:,.0f}",
        f"{figure.fastest:,.0f}",
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
