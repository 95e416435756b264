"""Import the MobileApps folder of the 4D component "4D Mobile App Server".

One folder per app, named ``<team id>.<bundle id>``, or by the bundle id alone where an app is for
Android; in it ``manifest.json``, the team's ``AuthKey_XXXXXXXXXX.p8``, perhaps
``google-services.json``, and one JSON file without extension per session.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from handbell._mail import fold_mail
from handbell._paths import expanded
from handbell.apps.app import App
from handbell.apps.store import AppStore
from handbell.errors import AppError, CredentialError, HandbellError, RegistryError
from handbell.services.apns.credential import read_auth_key

from .addresses import read_address
from .identity import IdentityStore
from .import_4d_files import MANIFEST, AppFolder, clean, object_of, read_object, text_of, unreadable
from .registration import Registration
from .session import Session, read_platform
from .store import Registry

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
    identities: IdentityStore | None = None,
    moved: list[int] | None = None,
    now: Callable[[], float] = time.time,
) -> Iterator[ImportStep]:
    """Import a MobileApps folder and yield the result of each file.

    It is idempotent: equal data are unchanged, and later registrations are kept. An unusable file
    is skipped with its reason. The folder is not changed. Apps of Android come along, and with
    ``identities`` the domain of universal links. Sessions that lost their token are added
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
        one = _Folder(root, folder, apps, registry, [] if moved is None else moved, now, identities)
        try:
            yield from one.steps()
        except OSError as error:
            yield one.skip(folder, "app", unreadable(folder.name, error))


@dataclass(frozen=True, slots=True)
class _Found:
    """A session file. ``at`` is its modification time, UNIX milliseconds."""

    file: Path
    at: int
    mail: str
    token: str
    service: str
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
    identities: IdentityStore | None

    def steps(self) -> Iterator[ImportStep]:
        try:
            described = AppFolder.read(self.folder)
        except (AppError, RegistryError) as error:
            yield self.skip(self.folder, "app", error)
            return
        if described.fault is not None:
            yield self.skip(self.folder / MANIFEST, "manifest", described.fault)
        try:
            app, outcome = self._app(described)
        except AppError as error:
            yield self.skip(self.folder, "app", error)
            return
        yield self.step(self.folder, f"app {app.id}", outcome, described.remark)
        yield from self._domain(app, described.associated_domain)
        yield from self._keys(app)
        yield from self._sessions(app)

    def _app(self, described: AppFolder) -> tuple[App, Outcome]:
        """Return the app of the folder, added or completed."""
        ids = described.ids()
        known = self._known(described)
        if known is None:
            return self.apps.add(**ids, name=described.name, is_suggested=True), "imported"
        missing = {name: value for name, value in ids.items() if value and not getattr(known, name)}
        if not missing:
            return known, "unchanged"
        return self.apps.set_ids(known, missing), "imported"

    def _known(self, described: AppFolder) -> App | None:
        """Return the app that is here already, by Apple's ids, or else by bundle id or package."""
        apps = self.apps.list()
        if described.team_id is not None:
            wanted = f"{described.team_id}.{described.bundle_id}"
            return next((app for app in apps if wanted in (app.id, app.apple_id)), None)
        names = {described.bundle_id, described.android_package}
        alike = [app for app in apps if names & {app.id, app.bundle_id, app.android_package}]
        return alike[0] if len(alike) == 1 else None

    def _domain(self, app: App, domain: str | None) -> Iterator[ImportStep]:
        if domain is None or self.identities is None:
            return
        file, what = self.folder / MANIFEST, f"domain {domain}"
        known = self.identities.of(app).associated_domain
        if known is not None:
            kept = "" if known == domain.lower() else f"{known} was set here"
            yield self.step(file, what, "unchanged", kept)
            return
        try:
            self.identities.set(app, associated_domain=domain)
        except AppError as error:
            yield self.skip(file, what, error)
        else:
            yield self.step(file, what, "imported")

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
            except (AppError, CredentialError) as error:
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
                service=found.service,
                status=found.status,
                at=found.at,
                platform=found.platform,
                locale=found.locale,
                device=found.device,
                external_id=clean(found.file.name),
            )
            self.moved.extend(self.registry.admit(app, registration).moved)
        except RegistryError as error:
            return self.skip(found.file, what, error)
        return self.step(found.file, what, "imported", found.note)

    def step(self, file: Path, what: str, outcome: Outcome, reason: str = "") -> ImportStep:
        relative = clean(str(file.relative_to(self.root)))
        return ImportStep(file=relative, what=clean(what), outcome=outcome, reason=clean(reason))

    def skip(self, file: Path, what: str, error: HandbellError) -> ImportStep:
        # The other column names the file.
        reason = error.what.replace(str(file), file.name)
        return replace(self.step(file, what, "skipped", reason), fix=clean(error.fix))


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


def _session_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if not file.suffix and not file.name.startswith(".") and not file.is_dir()
    )


def _read_session(file: Path, *, latest: int) -> _Found:
    content = read_object(file)
    device = object_of(content, "device")
    mail, token = text_of(content, "email"), text_of(device, "token")
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
    system = (text_of(device, "os") or "ios").lower()
    address = read_address(token, platform=read_platform(system))
    status = text_of(content, "status")
    return _Found(
        file=file,
        at=min(file.stat().st_mtime_ns // 1_000_000, latest),
        mail=mail,
        token=address.token,
        service=address.service,
        platform=read_platform(system),
        status=_STATUS.get(status or "", "pending"),
        locale=_locale(object_of(content, "language")),
        device=text_of(device, "description"),
        note="" if status in _STATUS else "Its status is not known, so it is pending",
    )


def _locale(language: dict[str, Any]) -> str | None:
    parts = [part for part in (text_of(language, "code"), text_of(language, "region")) if part]
    whole = text_of(language, "id") or "-".join(parts)
    return whole.replace("_", "-") or None


def _kept(found: _Found, known: Session) -> str:
    if known.status == "closed":
        return f"Its session was closed here since ({known.reason})"
    if known.mail != fold_mail(found.mail):
        return f"The device was later registered here for {known.mail}"
    return ""
