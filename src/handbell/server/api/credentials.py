"""Credentials of an app: `/v1/apps/{app}/credentials`. Secrets are write-only."""

from functools import partial
from typing import Annotated, Any, Final, Literal, get_args

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from handbell._text import json_fault
from handbell.apps.app import App
from handbell.apps.checkup import caveats
from handbell.apps.credential_kinds import Credential
from handbell.apps.store import StoredCredential
from handbell.errors import (
    CredentialError,
    InvalidRequestError,
    MediaTypeError,
    MissingCredentialError,
    NotFoundError,
    RequestError,
)
from handbell.server.access import AppDep, Caller, CallerDep
from handbell.server.context import Context, context_of
from handbell.server.pages import Instant, ResultPage, instant
from handbell.server.problems import responses
from handbell.services.apns.credential import key_id_of_name, read_auth_key
from handbell.services.fcm.credential import ServiceAccount, is_key_file
from handbell.services.webpush.credential import VapidKey

router = APIRouter(prefix="/v1/apps/{app}/credentials", tags=["credentials"])

ContextDep = Annotated[Context, Depends(context_of)]
Environment = Literal["production", "development", "twin"]

_CERTIFICATES: Final = (".p12", ".pfx", ".pem", ".cer")
_PEM: Final = "-----BEGIN PRIVATE KEY-----\nMIGTAgEAMBMG...\n-----END PRIVATE KEY-----\n"


class CredentialOut(BaseModel):
    """A credential without its secret."""

    key_id: str = Field(
        examples=["ABC123DEFG"],
        description="A certificate's and a web push key's is its fingerprint",
    )
    service: str = Field(description="apns, fcm or webpush", examples=["apns"])
    kind: str = Field(description="key, certificate, service-account or vapid", examples=["key"])
    environment: Environment | None = Field(description="The only one it serves; null serves both")
    fingerprint: str
    expires_at: Instant | None = Field(description="Null for a key")
    created_at: Instant


class CredentialAdded(CredentialOut):
    """The added credential, with warnings."""

    warnings: list[str] = Field(
        description="Such as: the certificate has expired", examples=[[]], default_factory=list
    )


class CredentialIn(BaseModel):
    """A credential as text: one of key, certificate, service_account and vapid_key."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"key_id": "ABC123DEFG", "key": _PEM}]},
    )

    key: str | None = Field(
        default=None, max_length=100_000, description="The text of AuthKey_XXX.p8"
    )
    key_id: str | None = Field(
        default=None, max_length=100, description="The ten characters in the name of that file"
    )
    certificate: str | None = Field(
        default=None,
        max_length=100_000,
        description="A certificate and its key: both in PEM, or a .p12 in base64",
    )
    password: str | None = Field(default=None, max_length=1000, description="The certificate's")
    service_account: str | None = Field(
        default=None,
        max_length=100_000,
        description="The text of the JSON file of a Google service account's key",
    )
    vapid_key: str | None = Field(
        default=None,
        max_length=10_000,
        description="The private key that pages have subscribed with so far, as web-push prints it "
        "or in PEM; a new one is made by POST /v1/apps/{app}/web-push",
    )
    environment: Environment | None = Field(default=None, description="The only one it is to serve")
    force: bool = Field(
        default=False,
        description="Replace a web push key though subscriptions are lost with it",
    )


@router.get(
    "",
    operation_id="listCredentials",
    summary="List an app's credentials",
    responses=responses(401, 403, 404, 409),
)
async def list_credentials(context: ContextDep, app: AppDep) -> ResultPage[CredentialOut]:
    """List credentials, newest first, without their secrets."""
    stored = await context.run(context.system.apps.credentials, app)
    return ResultPage[CredentialOut].model_validate(
        {"data": [describe(item) for item in stored], "next": None}
    )


@router.post(
    "",
    operation_id="addCredential",
    summary="Add a credential",
    status_code=201,
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": CredentialIn.model_json_schema()},
            },
        }
    },
)
async def add_credential(
    context: ContextDep, caller: CallerDep, app: AppDep, request: Request
) -> CredentialAdded:
    """Store a credential encrypted; one with the same key id is replaced.

    It is never shown again. A file is taken as `multipart/form-data` as well: the part `file` is
    AuthKey_XXX.p8, a .p12 or .pem with certificate and key, or the JSON file of a service account;
    `key_id` is needed where the name of the .p8 does not say it; `password` and `environment` are
    as in JSON. A web push key takes the place of the former one. If browsers have subscribed with
    that, the answer is 409 `credential-in-use`, unless `force` is true.
    """
    given = await _given(request)
    credential = await _read(context, app, given)
    store = partial(
        add, context, caller, app, credential, given.environment, is_forced=given.is_forced
    )
    return await context.run(store)


def add(
    context: Context,
    caller: Caller,
    app: App,
    credential: Credential,
    environment: str | None,
    *,
    is_forced: bool,
) -> CredentialAdded:
    """Store a credential, and note who added it. Writes the database: to be called in a thread."""
    stored = context.system.apps.add_credential(
        app, credential, environment=environment, is_forced=is_forced
    )
    context.system.audit.note(
        caller.actor, "credential.add", stored.key_id, app=app.id, detail=stored.kind
    )
    warnings = caveats(credential, now=context.system.now())
    return CredentialAdded.model_validate({**describe(stored), "warnings": warnings})


@router.delete(
    "/{key_id}",
    operation_id="removeCredential",
    summary="Remove a credential",
    status_code=204,
    responses=responses(401, 403, 404, 409),
)
async def remove_credential(
    context: ContextDep,
    caller: CallerDep,
    app: AppDep,
    key_id: str,
    *,
    force: Annotated[
        bool, Query(description="Remove a web push key though subscriptions are lost with it")
    ] = False,
) -> Response:
    """Remove a credential; later sends use another one, or wait for one."""

    def write() -> None:
        try:
            context.system.apps.remove_credential(app, key_id, is_forced=force)
        except MissingCredentialError as error:
            raise NotFoundError(error.what, fix="List what there is with GET") from None
        context.system.audit.note(caller.actor, "credential.remove", key_id, app=app.id)

    await context.run(write)
    return Response(status_code=204)


class _Given:
    """A credential as posted, in either form."""

    def __init__(
        self,
        content: bytes,
        *,
        kind: str,
        key_id: str | None,
        password: str | None,
        environment: str | None,
        is_forced: bool = False,
    ) -> None:
        self.content = content
        self.kind = kind
        self.is_forced = is_forced
        self.key_id = key_id
        self.password = password
        self.environment = environment


async def _given(request: Request) -> _Given:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _from_json(await request.body())
    if kind == "multipart/form-data":
        return await _from_form(request)
    raise MediaTypeError(
        "A key is read from application/json or multipart/form-data",
        fix="With curl: --form file=@AuthKey_XXX.p8",
    )


def _from_json(body: bytes) -> _Given:
    try:
        posted = CredentialIn.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if fault["type"] == "json_invalid":
            why = json_fault(body, ValueError(fault["msg"]))
            raise RequestError(
                f"The body is not JSON: {why}", fix="Send valid JSON in UTF-8"
            ) from None
        where = ".".join(str(part) for part in ("body", *fault["loc"]))
        raise InvalidRequestError(f"{where[:200]}: {fault['msg']}", fix="See /docs") from None
    contents = {
        "key": posted.key,
        "certificate": posted.certificate,
        "service-account": posted.service_account,
        "vapid": posted.vapid_key,
    }
    given = {kind: content for kind, content in contents.items() if content is not None}
    if len(given) != 1:
        raise InvalidRequestError(
            "One of key, certificate, service_account and vapid_key has to be given",
            fix="Send key and key_id, or one of the others",
        )
    ((kind, content),) = given.items()
    return _Given(
        content.encode(errors="replace"),
        kind=kind,
        key_id=posted.key_id,
        password=posted.password,
        environment=posted.environment,
        is_forced=posted.force,
    )


async def _from_form(request: Request) -> _Given:
    try:
        form = await request.form(max_files=1, max_fields=10)
    except HTTPException as error:
        if error.status_code != RequestError.status:
            raise
        raise RequestError(
            "The form cannot be read", fix="With curl: --form file=@AuthKey_XXX.p8"
        ) from None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidRequestError(
                "The form has no file", fix="Name the part file, and give it a file name"
            )
        content, name = await file.read(), (file.filename or "").lower()
        texts = {
            field: value.strip()
            for field in ("key_id", "password", "environment", "force")
            if isinstance(value := form.get(field), str) and value.strip()
        }
    finally:
        await form.close()
    environment = texts.get("environment")
    if environment not in (None, *get_args(Environment)):
        raise InvalidRequestError(
            "The environment is not known", fix="Use production, development or twin"
        )
    kind = "certificate" if name.endswith(_CERTIFICATES) else "key"
    return _Given(
        content,
        kind="service-account" if is_key_file(content) else kind,
        key_id=texts.get("key_id") or key_id_of_name(file.filename or ""),
        password=texts.get("password"),
        environment=environment,
        is_forced=texts.get("force") == "true",
    )


async def _read(context: Context, app: App, given: _Given) -> Credential:
    if given.kind == "service-account":
        return await context.run(ServiceAccount.read, given.content)
    if given.kind == "vapid":
        return VapidKey.read(given.content)
    if given.kind == "certificate":
        return await context.read_certificate(given.content, password=given.password)
    if given.key_id is None:
        raise CredentialError(
            "The key id is missing: it is not in the name of the file",
            fix="Keep the name AuthKey_XXXXXXXXXX.p8, or send key_id beside the key",
        )
    return read_auth_key(given.content, team_id=app.apple.team_id, key_id=given.key_id)


def describe(stored: StoredCredential) -> dict[str, Any]:
    """Return what is told of a credential."""
    return {
        "key_id": stored.key_id,
        "service": stored.service,
        "kind": stored.kind,
        "environment": stored.environment,
        "fingerprint": stored.fingerprint,
        "expires_at": instant(stored.expires_at),
        "created_at": instant(stored.created_at),
    }
