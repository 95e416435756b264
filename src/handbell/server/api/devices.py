"""Registration of a device by API key, its own secret, an identity token or a mailed link."""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.requests import Request

from handbell._mail import ordinary_mail
from handbell.apps.app import App
from handbell.errors import (
    InvalidRequestError,
    ProofRequiredError,
    RegistryError,
    UnauthorizedError,
    UnknownSessionError,
    WebPushKeyError,
)
from handbell.fixes import Action, Fix
from handbell.registry.registration import (
    DeviceDescription,
    Registered,
    Registration,
    registered_mail,
)
from handbell.registry.secret import SESSION_MARK, digest_of, new_secret
from handbell.registry.session import Session
from handbell.server.access import Caller, client_network, session_secret
from handbell.server.context import Context, context_of
from handbell.server.limits import Limit
from handbell.server.links.smtp import mail_server

from .session_models import RegistrationIn, SessionChange, session_out

CURRENT: Final = "current"
"""What a device may call its own session in an address."""

PER_CLIENT: Final = Limit(number=120, seconds=60, step=12)
"""How many registrations with a proof of their own one network address may ask for."""
WRONG_SECRETS: Final = Limit(number=100, seconds=60, step=10)
"""How many requests with a wrong session secret one network address may make."""
MAILS_PER_CLIENT: Final = Limit(number=30, seconds=600)
"""How many links one network address may have mailed."""
MAILS_PER_ADDRESS: Final = Limit(number=4, seconds=900)
"""How many links may be mailed to one mail address of an app."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationAnswer:
    """The response to a registration."""

    status: int
    body: dict[str, Any]


async def register(
    request: Request, app: App, caller: Caller, body: RegistrationIn
) -> RegistrationAnswer:
    """Register a device by the proof the request carries.

    Once this responds with an active session, nothing for a former user is shown any more.
    """
    context = context_of(request)
    await check_web_push_key(context, app, body)
    if caller.scopes:
        return await _by_key(context, app, body)
    secret = session_secret(request)
    if secret is not None and body.mail is None and body.identity_token is None:
        renewed = await renew(request, app, secret, body)
        return RegistrationAnswer(status=200, body=_told(renewed.session, None, body))
    await context.require("registrations", client_network(request), PER_CLIENT)
    identity = await context.run(context.system.identities.of, app)
    if identity.proof == "token" and body.identity_token is not None:
        return await _by_token(context, app, body)
    if identity.proof == "link" and body.mail is not None and body.identity_token is None:
        return await _by_link(request, app, body, secret)
    raise _not_proven(identity.proof, app)


async def check_web_push_key(
    context: Context, app: App, body: RegistrationIn | SessionChange
) -> None:
    """Raise WebPushKeyError for a subscription that was made with another key than the app's.

    No push service would accept anything for it. While the app has no key any is accepted.
    """
    given = body.application_server_key
    if body.subscription is None or given is None:
        return
    environments = ("production", "twin") if body.environment is None else (body.environment,)
    keys = await context.run(context.system.apps.web_push_keys, app, environments)
    if keys and given.rstrip("=") not in keys:
        raise WebPushKeyError(
            "The subscription was made with another web push key than the app's",
            fix="End it with unsubscribe(), subscribe with the public_key of "
            f"GET /v1/apps/{app.id}/web-push, and register that",
        )


async def renew(
    request: Request, app: App, secret: str, body: RegistrationIn | SessionChange
) -> Registered:
    """Refresh the session that a secret speaks for. Raises UnauthorizedError when it is void."""
    context = context_of(request)
    described = DeviceDescription.read(**body.about())
    renewed = await context.run(
        context.system.registry.renew,
        app,
        digest_of(secret),
        described,
        address=body.reached_at(),
        service=body.service,
    )
    if renewed is None:
        raise await _void(request)
    await release(context, renewed)
    return renewed


async def own_session(request: Request, app: App, named: str) -> Session:
    """Return the session that the request's secret speaks for, if the path names it.

    Raises UnauthorizedError when the secret is void, and UnknownSessionError when the path names
    another session.
    """
    context = context_of(request)
    digest = digest_of(session_secret(request) or "")
    find = context.system.registry.session_by_secret
    session = await context.run(find, app, digest)
    if session is None:
        raise await _void(request)
    if named != CURRENT and await context.run(find, app, digest, session_id(named)) is None:
        raise unknown_session(named)
    return session


async def release(context: Context, registered: Registered) -> None:
    """Return once nothing is in flight to the sessions that lost their token."""
    if registered.moved:
        await context.system.engine.release(registered.moved)


def session_id(named: str) -> int:
    """Return the id of a session in an address. Raises UnknownSessionError for anything else."""
    if not named.isascii() or not named.isdigit() or len(named) > 18:  # noqa: PLR2004 - 64 bits
        raise unknown_session(named)
    return int(named)


def unknown_session(named: str) -> UnknownSessionError:
    """Return the error for a session that is not there, or not the caller's."""
    return UnknownSessionError(
        f"There is no session {named[:40]!r} of yours",
        fix=f"A device names its own session {CURRENT}",
    )


async def _by_key(context: Context, app: App, body: RegistrationIn) -> RegistrationAnswer:
    if body.identity_token is not None:
        raise InvalidRequestError(
            "An API key needs no identity token", fix="Name mail and device_token or subscription"
        )
    secret = new_secret(SESSION_MARK)
    registration = await _read(context, body, body.mail, secret, status="active")
    registered = await context.run(context.system.registry.admit, app, registration)
    await release(context, registered)
    return RegistrationAnswer(status=201, body=_told(registered.session, secret, body))


async def _by_token(context: Context, app: App, body: RegistrationIn) -> RegistrationAnswer:
    identities = context.system.identities
    claims = await context.run(identities.check, app, body.identity_token or "")
    if body.mail is not None and registered_mail(body.mail) != claims.mail:
        raise InvalidRequestError(
            "The identity token names another person than mail", fix="Leave mail out"
        )
    secret = new_secret(SESSION_MARK)
    registration = await _read(context, body, claims.mail, secret, status="active")
    registered = await context.run(
        context.system.registry.admit,
        app,
        registration,
        first=lambda connection: identities.use(connection, app, claims),
    )
    await release(context, registered)
    return RegistrationAnswer(status=201, body=_told(registered.session, secret, body))


async def _by_link(
    request: Request, app: App, body: RegistrationIn, known: str | None
) -> RegistrationAnswer:
    """Answer all the same, and after the same work, whether the address is known or not."""
    context = context_of(request)
    mail_server(context.settings)
    secret = new_secret(SESSION_MARK)
    registration = await _read(context, body, body.mail, secret, status="pending")
    await context.require("mails-by-client", client_network(request), MAILS_PER_CLIENT)
    await context.require("mails", digest_of(f"{app.id} {registration.mail}"), MAILS_PER_ADDRESS)
    proofs = context.system.proofs
    if known is not None:
        session = await context.run(
            context.system.registry.session_by_secret, app, digest_of(known)
        )
        if session is not None and session.mail == registration.mail:
            # What another person has proven is not had by a secret: that takes the link.
            with suppress(ProofRequiredError):
                return await _once_more(request, app, body, known)
    session = await context.run(proofs.ask, app, registration)
    context.link_asked.set()
    return RegistrationAnswer(status=202, body=_told(session, secret, body))


async def _once_more(
    request: Request, app: App, body: RegistrationIn, secret: str
) -> RegistrationAnswer:
    """Mail another link to a device that waits for one; refresh it where it is proven."""
    context = context_of(request)
    renewed = await renew(request, app, secret, body)
    if renewed.session.status != "pending":
        return RegistrationAnswer(status=200, body=_told(renewed.session, None, body))
    await context.run(context.system.proofs.ask_again, app, digest_of(secret))
    context.link_asked.set()
    return RegistrationAnswer(status=202, body=_told(renewed.session, None, body))


async def _read(
    context: Context, body: RegistrationIn, mail: str | None, secret: str, *, status: str
) -> Registration:
    address = body.reached_at()
    if mail is None or address is None:
        missing = "mail" if mail is None else "device_token"
        raise InvalidRequestError(f"The member {missing} is missing", fix="Name it")
    read = partial(
        Registration.read,
        mail,
        address,
        service=body.service,
        status=status,
        at=int(context.system.now() * 1000),
        secret_digest=digest_of(secret),
        **body.about(),
    )
    # An international address takes long to check, and may wait for others.
    return read() if ordinary_mail(mail) is not None else await context.run(read)


def _told(session: Session, secret: str | None, given: RegistrationIn) -> dict[str, Any]:
    # Of a pending session only what whoever asked has said: else known people could be found out.
    is_proven = session.status != "pending"
    return {
        "id": session.id,
        "status": session.status,
        "secret": secret,
        "session": session_out(session) if is_proven else None,
        "warnings": given.ignored,
    }


def _not_proven(proof: str, app: App) -> RegistryError:
    fixes = {
        "key": Fix(
            Action.SET_PROOF,
            "Let the app's back end register it with an API key of the scope register, or set "
            "another proof",
            app=app.id,
        ),
        "link": "Name mail and device_token or subscription: a link is mailed that proves it",
        "token": "Send an identity_token that the app's back end has signed for this person",
    }
    return ProofRequiredError("Nothing proves whose device this is", fix=fixes[proof])


async def _void(request: Request) -> UnauthorizedError:
    await context_of(request).require("secrets", client_network(request), WRONG_SECRETS)
    return UnauthorizedError(
        "The session secret is not known, or its session is over", fix="Register the device again"
    )
