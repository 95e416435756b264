"""Import the MobileApps folder of the 4D component "4D Mobile App Server".

One folder per app, named ``<team id>.<bundle id>``; in it ``manifest.json``, the team's
``AuthKey_XXXXXXXXXX.p8`` and one JSON file without extension per session.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from handbell._mail import fold_mail
from handbell._paths import expanded
from handbell.apps.app import App
from handbell.apps.store import AppStore
from handbell.errors import (
    AppError,
    AppExistsError,
    CredentialError,
    HandbellError,
    RegistryError,
)
from handbell.services.apns.address import read_token
from handbell.services.apns.credential import read_auth_key

from .registration import Registration
from .session import MAX_LABEL_LENGTH, Session, read_platform
from .store import Registry

MAX_FILE_BYTES: Final = 1024 * 1024
MANIFEST: Final = "manifest.json"

Outcome = Literal["imported", "unchanged", "skipped"]
_STATUS: Final = {"accepted": "active", "pending": "pending"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportStep:
    """The import of one file: ``file`` is relative to the folder, ``what`` is its content.

    ``reason`` is why a file was skipped, or a remark about an imported one; ``fix`` is for a
    skipped one.
    """

    file: str
    what: str
    outcome: Outcome
    reason: str = ""
    fix: str = ""


def import_folder(
    path: Path | str,
    apps: AppStore,
    registry: Registry,
    *,
    moved: list[int] | None = None,
    now: Callable[[], float] = time.time,
) -> Iterator[ImportStep]:
    """Import a MobileApps folder and yield the result of each file.

    It is idempotent: equal data are unchanged, and later registrations are kept. An unusable file
    is skipped with its reason. The folder is not changed. Sessions that lost their token are added
    to ``moved``, to be released from the workers. Raises :class:`~handbell.errors.RegistryError`
    when it cannot be read.
    """
    root, folders = _app_folders(expanded(path).absolute())
    if not folders:
        raise RegistryError(
            f"There is no app folder in {root}",
            fix="Name the folder MobileApps, which lies beside the data file",
        )
    for folder in folders:
        one = _Folder(root, folder, apps, registry, [] if moved is None else moved, now)
        try:
            yield from one.steps()
        except OSError as error:
            yield one.skip(folder, "app", _unreadable(folder.name, error))


@dataclass(frozen=True, slots=True)
class _Found:
    """A session file. ``at`` is its modification time, UNIX milliseconds."""

    file: Path
    at: int
    mail: str
    token: str
    platform: str
    status: str
    locale: str | None
    device: str | None
    note: str


@dataclass(frozen=True, slots=True)
class _Folder:
    root: Path
    folder: Path
    apps: AppStore
    registry: Registry
    moved: list[int]
    now: Callable[[], float]

    def steps(self) -> Iterator[ImportStep]:
        try:
            app = _named_app(self.folder)
        except (AppError, RegistryError) as error:
            yield self.skip(self.folder, "app", error)
            return
        try:
            app = replace(app, name=_app_name(self.folder) or app.name)
        except (AppError, RegistryError) as error:
            yield self.skip(self.folder / MANIFEST, "manifest", error)
        app, outcome = self._add_app(app)
        yield self.step(self.folder, f"app {app.id}", outcome)
        yield from self._keys(app)
        yield from self._sessions(app)

    def _add_app(self, app: App) -> tuple[App, Outcome]:
        try:
            return self._added(app), "imported"
        except AppExistsError:
            return self.apps.find(app.id), "unchanged"

    def _added(self, app: App) -> App:
        return self.apps.add(app.team_id, app.bundle_id, app.name, is_suggested=True)

    def _keys(self, app: App) -> Iterator[ImportStep]:
        known = {
            (credential.key_id, credential.fingerprint) for credential in self.apps.credentials(app)
        }
        for file in sorted(self.folder.glob("*.p8")):
            try:
                key = read_auth_key(file, team_id=app.apple.team_id)
                is_new = (key.key_id, key.fingerprint) not in known
                if is_new:
                    self.apps.add_credential(app, key)
            except CredentialError as error:
                yield self.skip(file, "key", error)
            else:
                yield self.step(file, f"key {key.key_id}", "imported" if is_new else "unchanged")

    def _sessions(self, app: App) -> Iterator[ImportStep]:
        found: list[_Found] = []
        for file in _session_files(self.folder):
            try:
                found.append(_read_session(file, latest=int(self.now() * 1000)))
            except RegistryError as error:
                yield self.skip(file, "session", error)
        # The newest last: of several files with one token, it decides the owner.
        found.sort(key=lambda one: (one.at, one.file.name))
        newest = {item.token: item for item in found}
        known = self.registry.latest_by_token(app, newest)
        for one in found:
            if newest[one.token] is one:
                yield self._take(app, one, known.get(one.token))
            else:
                reason = f"{newest[one.token].file.name} is newer and has the same device token"
                yield self.step(one.file, f"session of {one.mail}", "skipped", reason)

    def _take(self, app: App, found: _Found, known: Session | None) -> ImportStep:
        what = f"session of {found.mail}"
        if known is not None and known.registered_at >= found.at:
            return self.step(found.file, what, "unchanged", _kept(found, known))
        try:
            registration = Registration.read(
                found.mail,
                found.token,
                status=found.status,
                at=found.at,
                platform=found.platform,
                locale=found.locale,
                device=found.device,
                external_id=_clean(found.file.name),
            )
            self.moved.extend(self.registry.admit(app, registration).moved)
        except RegistryError as error:
            return self.skip(found.file, what, error)
        return self.step(found.file, what, "imported", found.note)

    def step(self, file: Path, what: str, outcome: Outcome, reason: str = "") -> ImportStep:
        relative = _clean(str(file.relative_to(self.root)))
        return ImportStep(file=relative, what=_clean(what), outcome=outcome, reason=_clean(reason))

    def skip(self, file: Path, what: str, error: HandbellError) -> ImportStep:
        # The other column names the file.
        reason = error.what.replace(str(file), file.name)
        return replace(self.step(file, what, "skipped", reason), fix=_clean(error.fix))


_FROM_BACKUP: Final = "Bring the original's file back from a backup, and import again"


def _unreadable(name: str, error: OSError) -> RegistryError:
    return RegistryError(
        f"{name} cannot be read: {error.strerror or type(error).__name__}",
        fix="Give this user the right to read it where that is missing, and import again",
    )


def _app_folders(root: Path) -> tuple[Path, list[Path]]:
    try:
        if (root / MANIFEST).is_file():
            return root.parent, [root]
        entries = sorted(root.iterdir())
        return root, [entry for entry in entries if entry.is_dir() and entry.name[0] != "."]
    except OSError as error:
        raise RegistryError(
            f"{root} cannot be read: {error.strerror}",
            fix="Name the folder MobileApps, which lies beside the data file",
        ) from None


def _named_app(folder: Path) -> App:
    try:
        return App.read_id(folder.name)
    except AppError:
        manifest = _read_object(folder / MANIFEST)
    team_id = _text(_object(manifest, "team"), "id")
    if not team_id:
        raise RegistryError(
            "Neither the folder's name nor its manifest has a team id",
            fix="Name the folder TEAMID.BUNDLEID, as the original does, and import again",
        )
    return App(team_id=team_id, bundle_id=folder.name)


def _app_name(folder: Path) -> str | None:
    return _text(_object(_read_object(folder / MANIFEST), "application"), "name")


def _session_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if not file.suffix and not file.name.startswith(".") and not file.is_dir()
    )


def _read_session(file: Path, *, latest: int) -> _Found:
    content = _read_object(file)
    device = _object(content, "device")
    mail, token = _text(content, "email"), _text(device, "token")
    if mail is None:
        raise RegistryError(
            "It names no mail address",
            fix="Let the app sign in again, or add the session by hand: handbell session add",
        )
    if token is None:
        raise RegistryError(
            "It has no device token: the app never asked for push",
            fix="Nothing to do: it is registered once the app asks",
        )
    system = (_text(device, "os") or "ios").lower()
    if system == "android":
        raise RegistryError(
            "It is an Android device, which Handbell does not reach yet",
            fix="Nothing to do: leave the original system running for those devices",
        )
    status = _text(content, "status")
    return _Found(
        file=file,
        at=min(file.stat().st_mtime_ns // 1_000_000, latest),
        mail=mail,
        token=read_token(token),
        platform=read_platform(system),
        status=_STATUS.get(status or "", "pending"),
        locale=_locale(_object(content, "language")),
        device=_text(device, "description"),
        note="" if status in _STATUS else "Its status is not known, so it is pending",
    )


def _locale(language: dict[str, Any]) -> str | None:
    parts = [part for part in (_text(language, "code"), _text(language, "region")) if part]
    whole = _text(language, "id") or "-".join(parts)
    return whole.replace("_", "-") or None


def _kept(found: _Found, known: Session) -> str:
    if known.status == "closed":
        return f"Its session was closed here since ({known.reason})"
    if known.mail != fold_mail(found.mail):
        return f"The device was later registered here for {known.mail}"
    return ""


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read_text(file))
    except (ValueError, RecursionError):
        raise RegistryError(f"{file.name} is not JSON", fix=_FROM_BACKUP) from None
    except OSError as error:
        raise _unreadable(file.name, error) from None
    if not isinstance(content, dict):
        raise RegistryError(f"{file.name} does not hold a JSON object", fix=_FROM_BACKUP)
    return content


def _read_text(file: Path) -> str:
    # Opening a pipe would wait for its writer.
    if file.exists() and not file.is_file():
        raise RegistryError(f"{file.name} is not a file", fix=_FROM_BACKUP)
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise RegistryError(f"{file.name} is far too large", fix=_FROM_BACKUP)
    return data.decode("utf-8-sig")


def _object(content: dict[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _text(content: dict[str, Any], name: str) -> str | None:
    value = content.get(name)
    return _clean(value).strip()[:MAX_LABEL_LENGTH] or None if isinstance(value, str) else None


def _clean(text: str) -> str:
    # JSON and file names can contain lone surrogates, which cannot be printed or stored.
    return text.encode(errors="replace").decode()
