"""Keys and certificates of an app: `/v1/apps/{app}/credentials`. Secrets are write-only."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from handbell._text import json_fault
from handbell.apps.app import App
from handbell.apps.checkup import caveats
from handbell.apps.store import StoredCredential
from handbell.errors import (
    CredentialError,
    InvalidRequestError,
    MediaTypeError,
    MissingCredentialError,
    NotFoundError,
    RequestError,
)
from handbell.server.access import AppDep, CallerDep
from handbell.server.context import Context, context_of
from handbell.server.pages import Instant, ResultPage, instant
from handbell.server.problems import responses
from handbell.services.apns.credential import (
    AuthKey,
    Certificate,
    key_id_of_name,
    read_auth_key,
)

router = APIRouter(prefix="/v1/apps/{app}/credentials", tags=["credentials"])

ContextDep = Annotated[Context, Depends(context_of)]
Environment = Literal["production", "development", "twin"]

_CERTIFICATES: Final = (".p12", ".pfx", ".pem", ".cer")
_PEM: Final = "-----BEGIN PRIVATE KEY-----\nMIGTAgEAMBMG...\n-----END PRIVATE KEY-----\n"


class CredentialOut(BaseModel):
    """A key or certificate without its secret."""

    key_id: str = Field(examples=["ABC123DEFG"], description="A certificate's is its fingerprint")
    kind: Literal["key", "certificate"]
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
    """A key or certificate as text."""

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
    environment: Literal["production", "development"] | None = Field(
        default=None, description="The only one it is to serve"
    )


@router.get(
    "",
    operation_id="listCredentials",
    summary="List an app's keys and certificates",
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
    summary="Add a key or certificate",
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
    """Store a key or certificate encrypted; one with the same key id is replaced.

    It is never shown again. A file is taken as `multipart/form-data` as well: the part `file` is
    AuthKey_XXX.p8, or a .p12 or .pem with certificate and key; `key_id` is needed where the name of
    the .p8 does not say it; `password` and `environment` are as in JSON.
    """
    given = await _given(request)
    credential = await _read(context, app, given)

    def write() -> CredentialAdded:
        stored = context.system.apps.add_credential(app, credential, environment=given.environment)
        context.system.audit.note(
            caller.actor, "credential.add", stored.key_id, app=app.id, detail=stored.kind
        )
        warnings = caveats(credential, now=context.system.now())
        return CredentialAdded.model_validate({**describe(stored), "warnings": warnings})

    return await context.run(write)


@router.delete(
    "/{key_id}",
    operation_id="removeCredential",
    summary="Remove a key or certificate",
    status_code=204,
    responses=responses(401, 403, 404, 409),
)
async def remove_credential(
    context: ContextDep, caller: CallerDep, app: AppDep, key_id: str
) -> Response:
    """Remove a key or certificate; later sends use another one, or wait for one."""

    def write() -> None:
        try:
            context.system.apps.remove_credential(app, key_id)
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
        is_certificate: bool,
        key_id: str | None,
        password: str | None,
        environment: str | None,
    ) -> None:
        self.content = content
        self.is_certificate = is_certificate
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
    if (posted.key is None) == (posted.certificate is None):
        raise InvalidRequestError(
            "Either key or certificate has to be given, and not both",
            fix="Send key and key_id, or certificate",
        )
    return _Given(
        (posted.key or posted.certificate or "").encode(errors="replace"),
        is_certificate=posted.certificate is not None,
        key_id=posted.key_id,
        password=posted.password,
        environment=posted.environment,
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
            for field in ("key_id", "password", "environment")
            if isinstance(value := form.get(field), str) and value.strip()
        }
    finally:
        await form.close()
    environment = texts.get("environment")
    if environment not in (None, "production", "development"):
        raise InvalidRequestError(
            "The environment is not one of Apple's", fix="Use production or development"
        )
    return _Given(
        content,
        is_certificate=name.endswith(_CERTIFICATES),
        key_id=texts.get("key_id") or key_id_of_name(file.filename or ""),
        password=texts.get("password"),
        environment=environment,
    )


async def _read(context: Context, app: App, given: _Given) -> AuthKey | Certificate:
    if given.is_certificate:
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
        "kind": stored.kind,
        "environment": stored.environment,
        "fingerprint": stored.fingerprint,
        "expires_at": instant(stored.expires_at),
        "created_at": instant(stored.created_at),
    }
