"""Whether a credential fits an app."""

from handbell.errors import CredentialError
from handbell.services.apns.credential import AuthKey, Certificate
from handbell.services.table import SERVICES

from .app import App
from .credential_kinds import Credential


def check_fit(app: App, credential: Credential) -> None:
    """Raise CredentialError for a credential of another team or app."""
    if not isinstance(credential, AuthKey | Certificate):
        return
    team_id, bundle_id = app.apple
    if credential.team_id is not None and credential.team_id != team_id:
        raise CredentialError(
            f"{credential.key_id} is of team {credential.team_id}, and {app.id} is not",
            fix="Use a key of the app's own team",
        )
    topics = credential.topics if isinstance(credential, Certificate) else ()
    if topics and bundle_id not in topics:
        raise CredentialError(
            f"The certificate is for {', '.join(topics)}, not for {bundle_id}",
            fix="Use the certificate of this app, or an auth key of its team",
        )


def check_environment(service: str, environment: str | None) -> None:
    """Raise CredentialError for an environment that the service does not have."""
    known = SERVICES[service].environments
    if environment not in (None, *known):
        raise CredentialError(
            f"{SERVICES[service].title} has no environment {environment}",
            fix=f"Use one of {', '.join(known)}, or none for all",
        )
