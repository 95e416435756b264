"""Sessions of another system from a file: CSV with a header, or a JSON object in each line.

Its columns may be called as other systems call them. The file is read as a stream.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from types import MappingProxyType
from typing import IO, Any, Final

from handbell._text import count, json_fault
from handbell.apps.app import App
from handbell.errors import HandbellError, RegistryError

from .device_attributes import FACTS, read_attributes
from .registration import Registration
from .store import Registry

AT_ONCE: Final = 1000
"""How many lines are stored in one transaction."""

MAX_FIELD: Final = 100_000

_OWN: Final = ("mail", "device_token", "subscription", "endpoint", "p256dh", "auth")
_CHOICES: Final = ("platform", "service", "environment", "status")
_MEMBERS: Final = (*_OWN, *_CHOICES, *FACTS, "registered_at")
_SPELLINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "email": "mail",
        "emailaddress": "mail",
        "mailaddress": "mail",
        "user": "mail",
        "token": "device_token",
        "address": "device_token",
        "pushtoken": "device_token",
        "fcmtoken": "device_token",
        "apnstoken": "device_token",
        "registrationtoken": "device_token",
        "registrationid": "device_token",
        "identifier": "device_token",
        "os": "platform",
        "devicetype": "platform",
        "devicemodel": "device",
        "model": "device",
        "language": "locale",
        "timezone": "time_zone",
        "zone": "time_zone",
        "osversion": "os_version",
        "appversion": "app_version",
        "externalid": "external_id",
        "externaluserid": "external_id",
        "createdat": "registered_at",
        "lastactive": "registered_at",
        **{re.sub(r"_", "", name): name for name in _MEMBERS},
    }
)
_PLATFORMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "iphone": "ios",
        "ipad": "ipados",
        "mac": "macos",
        "browser": "web",
        "chrome": "web",
        "firefox": "web",
        "safari": "web",
        "webpush": "web",
        "gcm": "android",
        "fcm": "android",
        "apns": "ios",
    }
)
_DELIMITERS: Final = ",;\t|"
_MILLISECONDS_FROM: Final = 100_000_000_000
_SHOWN: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A line that was not imported, and why."""

    line: int
    error: HandbellError


@dataclass(slots=True)
class ImportResult:
    """The progress of an import; complete once the steps have ended.

    ``moved`` are sessions that lost their address, to be released from the workers. ``warnings``
    are about lines that were imported without something, or about columns.
    """

    imported: int = 0
    refused: int = 0
    moved: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def import_sessions(
    lines: Iterable[tuple[int, object]],
    registry: Registry,
    app: App,
    result: ImportResult,
    *,
    now: int,
    defaults: Mapping[str, str] = MappingProxyType({}),
    is_trial: bool = False,
) -> Iterator[list[Refusal]]:
    """Store the sessions of a file; yield the refusals of each batch.

    ``lines`` are of :func:`read_lines`. ``defaults`` are for members that a line lacks, such as
    the platform. ``now`` is in UNIX milliseconds. With ``is_trial`` each line is checked and
    nothing is stored. A repeat of the same file changes nothing but times.
    """
    left = iter(lines)
    while batch := list(islice(left, AT_ONCE)):
        refusals: list[Refusal] = []
        good: list[tuple[int, Registration]] = []
        for number, record in batch:
            try:
                if isinstance(record, HandbellError):
                    raise record
                registration, warnings = read_record(record, now=now, defaults=defaults)
                if is_trial:
                    registry.check(registration)
            except HandbellError as error:
                refusals.append(Refusal(line=number, error=error))
                continue
            good.append((number, registration))
            result.warnings += [f"line {number}: {warning}" for warning in warnings]
        if good and not is_trial:
            admitted = registry.admit_many(app, [one for _, one in good])
            result.moved += admitted.moved
            refusals += [
                Refusal(line=good[place][0], error=error)
                for place, error in admitted.refused.items()
            ]
        result.refused += len(refusals)
        result.imported += len(batch) - len(refusals)
        yield sorted(refusals, key=lambda refusal: refusal.line)


def read_record(
    record: object, *, now: int, defaults: Mapping[str, str] = MappingProxyType({})
) -> tuple[Registration, list[str]]:
    """Return the registration of one line, and warnings about what is left out.

    Raises :class:`~handbell.errors.RegistryError`.
    """
    if not isinstance(record, Mapping):
        raise RegistryError("The line is no JSON object", fix=_AS_EXPORTED)
    given = _by_name(record)
    for name, value in defaults.items():
        if not given.get(name):
            given[name] = value
    facts, warnings = read_attributes({name: given.get(name) for name in FACTS})
    if not isinstance(mail := given.get("mail"), str) or not mail.strip():
        raise RegistryError("The line names no mail address", fix="Fill the column mail")
    if _text(given, "status") == "closed":
        raise RegistryError("The session is closed", fix="Leave closed sessions out")
    platform = _text(given, "platform")
    about: dict[str, Any] = {
        "platform": _PLATFORMS.get(platform or "", platform),
        "environment": _text(given, "environment"),
        **facts,
    }
    registration = Registration.read(
        mail,
        _address(given),
        service=_text(given, "service"),
        status="pending" if _text(given, "status") == "pending" else "active",
        at=_instant(given.get("registered_at"), now),
        **about,
    )
    return registration, warnings


def is_csv(name: str, beginning: str) -> bool:
    """Return whether a file is CSV, by its name or else by how it begins."""
    ending = name.lower().rpartition(".")[2]
    if ending in ("csv", "tsv"):
        return True
    return ending not in ("ndjson", "jsonl", "json") and not beginning.lstrip("\ufeff ").startswith(
        "{"
    )


def read_lines(
    text: IO[str], result: ImportResult, *, as_csv: bool
) -> Iterator[tuple[int, object]]:
    """Yield each record of a file with the number of its line, or what is wrong with it.

    Raises :class:`~handbell.errors.RegistryError` for a file that cannot be read at all.
    """
    try:
        yield from _csv_rows(text, result) if as_csv else _json_lines(text)
    except UnicodeDecodeError:
        raise RegistryError("The file is not UTF-8", fix="Save it as UTF-8") from None


def _json_lines(text: IO[str]) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(text, start=1):
        if not line.strip("\ufeff \t\r\n"):
            continue
        try:
            yield number, json.loads(line.removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:
            fault = json_fault(line.encode(errors="replace"), error)
            yield number, RegistryError(f"The line is not JSON: {fault}", fix=_AS_EXPORTED)


def _csv_rows(text: IO[str], result: ImportResult) -> Iterator[tuple[int, object]]:
    head = text.readline().removeprefix("\ufeff")
    delimiter = max(_DELIMITERS, key=head.count)
    csv.field_size_limit(MAX_FIELD)
    try:
        (header,) = csv.reader([head], delimiter=delimiter)
    except (csv.Error, ValueError):
        raise RegistryError("The file has no header", fix=_HEADER) from None
    names = [_member(name) for name in header]
    if "mail" not in names or not {"device_token", "subscription", "endpoint"} & set(names):
        raise RegistryError(
            "The first line does not name the columns of mail and address", fix=_HEADER
        )
    unknown = [name for name in header if _member(name) is None and name.strip()]
    result.warnings += [
        f"The column {name[:_SHOWN]!r} is not known; it is left out." for name in unknown
    ]
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 2
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield number, RegistryError(f"The line is not CSV: {error}", fix="Correct it there")
            continue
        if row is None:
            return
        if not any(cell.strip() for cell in row):
            continue
        if len(row) > len(names):
            many = f"The line has {count(len(row), 'column')}, and the header {len(names)}"
            yield number, RegistryError(many, fix="Put texts with the delimiter in double quotes")
            continue
        yield (
            number,
            {name: cell for name, cell in zip(names, row, strict=False) if name and cell.strip()},
        )


def _by_name(record: Mapping[Any, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in record.items():
        member = _member(str(name))
        # What an export calls by two names is the same.
        if member is not None and value is not None:
            given.setdefault(member, value)
    if isinstance(keys := record.get("keys"), Mapping) and "endpoint" in given:
        given["subscription"] = {"endpoint": given["endpoint"], "keys": keys}
    return given


def _member(name: str) -> str | None:
    """Return which member a column is, or None for one that is not known."""
    return _SPELLINGS.get(re.sub(r"[^a-z0-9]", "", name.lower()))


def _address(given: Mapping[str, Any]) -> str | Mapping[str, object]:
    subscription = given.get("subscription")
    if isinstance(subscription, str):
        try:
            subscription = json.loads(subscription)
        except (ValueError, RecursionError):
            raise RegistryError(
                "The subscription is not JSON", fix="Write it as the browser's toJSON() gives it"
            ) from None
    token = given.get("device_token")
    if subscription is None and given.get("endpoint"):
        keys = {name: given.get(name) for name in ("p256dh", "auth")}
        subscription = {"endpoint": given["endpoint"], "keys": keys}
    if subscription is not None:
        found = subscription if isinstance(subscription, Mapping) else {}
        if token not in (None, "", found.get("endpoint")):
            raise RegistryError(
                "The line has a device token and a subscription", fix="Give each a line of its own"
            )
        return found
    if not isinstance(token, str) or not token.strip():
        raise RegistryError(
            "The line has no address", fix="Fill device_token, or endpoint, p256dh and auth"
        )
    if token.lstrip().startswith("https://") and given.get("p256dh"):
        keys = {name: given.get(name) for name in ("p256dh", "auth")}
        return {"endpoint": token, "keys": keys}
    return token


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is None or isinstance(value, str):
        return (value or "").strip().lower() or None
    raise RegistryError(f"{name} is no text", fix="Write it in quotes")


def _instant(value: object, now: int) -> int:
    """Return when a device last registered; what cannot be read, or is to come, is now."""
    try:
        if isinstance(value, str) and not re.fullmatch(r"\s*\d{9,13}\s*", value):
            read = datetime.fromisoformat(value.strip())
            at = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000
        else:
            number = float(value)  # type: ignore[arg-type]
            at = number if number >= _MILLISECONDS_FROM else number * 1000
        return max(0, min(now, int(at)))
    except (TypeError, ValueError, OverflowError):
        return now


_AS_EXPORTED: Final = "Write each line as an export does: a JSON object with mail and device_token"
_HEADER: Final = (
    "Begin with a line such as: mail,device_token,platform,locale; for browsers: "
    "mail,endpoint,p256dh,auth"
)
