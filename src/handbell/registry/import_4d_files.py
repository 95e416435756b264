"""What the files of a 4D MobileApps folder say."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from handbell.apps.app import App
from handbell.apps.identifiers import read_fingerprints, read_package
from handbell.errors import AppError, HandbellError, RegistryError

from .session import MAX_LABEL_LENGTH

MAX_FILE_BYTES: Final = 1024 * 1024
MANIFEST: Final = "manifest.json"
GOOGLE_SERVICES: Final = "google-services.json"

_FROM_BACKUP: Final = "Bring the original's file back from a backup, and import again"


def unreadable(name: str, error: OSError) -> RegistryError:
    """Return the error for a file or folder that the system does not let us read."""
    return RegistryError(
        f"{name} cannot be read: {error.strerror or type(error).__name__}",
        fix="Give this user the right to read it where that is missing, and import again",
    )


def read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises RegistryError."""
    try:
        content = json.loads(_read_text(file))
    except (ValueError, RecursionError):
        raise RegistryError(f"{file.name} is not JSON", fix=_FROM_BACKUP) from None
    except OSError as error:
        raise unreadable(file.name, error) from None
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


def object_of(content: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a member that is an object; an empty one for anything else."""
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def text_of(content: dict[str, Any], name: str) -> str | None:
    """Return a member that is a text, cut to what can be stored; None for anything else."""
    value = content.get(name)
    return clean(value).strip()[:MAX_LABEL_LENGTH] or None if isinstance(value, str) else None


def clean(text: str) -> str:
    """Return a text without what cannot be printed or stored."""
    # JSON and file names can contain lone surrogates, which cannot be printed or stored.
    return text.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class AppFolder:
    """What an app's folder says of its app.

    ``remark`` is about what was assumed, ``fault`` about a part of the manifest that is left out.
    """

    team_id: str | None
    bundle_id: str
    android_package: str | None
    android_fingerprints: tuple[str, ...]
    associated_domain: str | None
    name: str | None
    remark: str = ""
    fault: HandbellError | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a folder's name, its manifest and Google's configuration.

        Raises AppError or RegistryError where they name no app.
        """
        manifest: dict[str, Any] = {}
        fault: HandbellError | None = None
        try:
            manifest = read_object(folder / MANIFEST)
        except RegistryError as error:
            fault = error
        team_id, bundle_id = _apples(folder.name, manifest)
        package, remark = _package(folder, manifest, bundle_id)
        if team_id is None and package is None:
            raise RegistryError(
                "Neither the folder's name nor its manifest has a team id",
                fix="Name the folder TEAMID.BUNDLEID, as the original does, and import again",
            )
        fingerprints: tuple[str, ...] = ()
        try:
            fingerprints = _fingerprints(manifest) if package else ()
        except AppError as error:
            fault = fault or error
        return cls(
            team_id=team_id,
            bundle_id=bundle_id,
            android_package=package,
            android_fingerprints=fingerprints,
            associated_domain=_domain(manifest),
            name=text_of(object_of(manifest, "application"), "name"),
            remark=remark,
            fault=fault,
        )

    def ids(self) -> dict[str, Any]:
        """Return what the push services know the app by."""
        apples = {"team_id": self.team_id, "bundle_id": self.bundle_id} if self.team_id else {}
        return {
            **apples,
            "android_package": self.android_package,
            "android_fingerprints": self.android_fingerprints,
        }


def _apples(name: str, manifest: dict[str, Any]) -> tuple[str | None, str]:
    """Return team id and bundle id; the team is None where the app has none."""
    try:
        ids = App.read_id(name).apple
    except AppError:
        team_id = text_of(object_of(manifest, "team"), "id")
        if team_id is None:
            return None, name
        ids = App(team_id=team_id, bundle_id=name).apple
    return ids.team_id, ids.bundle_id


def _package(folder: Path, manifest: dict[str, Any], bundle_id: str) -> tuple[str | None, str]:
    """Return the package of an app that is for Android, and what was assumed about it."""
    configured = _configured_package(folder / GOOGLE_SERVICES)
    if configured is not None:
        return configured, ""
    target = object_of(manifest, "info").get("target")
    targets = target if isinstance(target, list) else [target]
    if not any(isinstance(one, str) and one.lower() == "android" for one in targets):
        return None, ""
    # The original names it so, team id included, to the devices that verify its links.
    whole = text_of(manifest, "id") or folder.name
    for name in (whole.lower(), bundle_id.lower()):
        try:
            package = read_package(name)
        except AppError:
            continue
        return package, (
            f"Its package is taken for {package}; correct it with handbell app set "
            "--android-package if Firebase has another"
        )
    return None, ""


def _configured_package(file: Path) -> str | None:
    """Return the only package in Google's configuration of an app, if there is one."""
    try:
        clients = read_object(file).get("client") if file.is_file() else None
    except RegistryError:
        return None
    found = {
        text_of(object_of(object_of(one, "client_info"), "android_client_info"), "package_name")
        for one in (clients if isinstance(clients, list) else [])
        if isinstance(one, dict)
    } - {None}
    try:
        return read_package(str(found.pop())) if len(found) == 1 else None
    except AppError:
        return None


def _fingerprints(manifest: dict[str, Any]) -> tuple[str, ...]:
    given = object_of(manifest, "signingReport").get("SHA-256")
    texts = given if isinstance(given, list) else [given]
    return read_fingerprints([text for text in texts if isinstance(text, str)])


def _domain(manifest: dict[str, Any]) -> str | None:
    text = text_of(manifest, "associatedDomain")
    return None if text is None else text.removeprefix("https://").partition("/")[0] or None
