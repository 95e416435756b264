"""An app's credentials as *Publishing* shows them: what tells one from another, and no secret."""

from dataclasses import dataclass

from handbell.apps.app import App
from handbell.apps.credential_kinds import KINDS
from handbell.apps.credential_store import StoredCredential
from handbell.errors import HandbellError
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.webpush.credential import VapidKey
from handbell.system import System


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRow:
    """A credential in a list.

    ``facts`` are pairs of a label and a text. ``public_key`` is that of a web push key, and
    ``subscriptions`` how many browsers can be reached by it alone. ``problem`` is empty, or why it
    cannot be used.
    """

    stored: StoredCredential
    title: str
    facts: tuple[tuple[str, str], ...] = ()
    public_key: str = ""
    subscriptions: int = 0
    problem: str = ""


def credential_rows(system: System, app: App) -> dict[str, list[CredentialRow]]:
    """Return an app's credentials by push service, the newest first."""
    found: dict[str, list[CredentialRow]] = {}
    for stored in system.apps.credentials(app):
        found.setdefault(stored.service, []).append(_row(system, app, stored))
    return found


def _row(system: System, app: App, stored: StoredCredential) -> CredentialRow:
    title = KINDS[stored.kind].title
    if stored.service == "apns":
        return CredentialRow(stored=stored, title=title)
    try:
        credential = system.apps.credential(app, stored.key_id)
    except HandbellError as error:
        return CredentialRow(stored=stored, title=title, problem=f"{error.what}. {error.fix}")
    if isinstance(credential, ServiceAccount):
        facts = [("Project", credential.project_id), ("Account", credential.client_email)]
        return CredentialRow(stored=stored, title=title, facts=tuple(facts))
    return CredentialRow(
        stored=stored,
        title=title,
        public_key=credential.public_key if isinstance(credential, VapidKey) else "",
        subscriptions=system.apps.subscriptions_by(app, stored.key_id),
    )
