"""A plain client of FCM on a twin: signs for access tokens, posts messages, reads errors."""

import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import jwt

from handbell.services.fcm.protocol import GRANT_TYPE, SCOPE
from handbell.twin.threaded import RunningTwin

HELLO = {"notification": {"title": "Hello", "body": "It rings"}}


@dataclass
class FcmClient:
    """A service account that the twin made, and the connection; ``now`` is the account's clock."""

    twin: RunningTwin
    account: dict[str, str]
    client: httpx.Client
    now: Callable[[], float]
    issued: dict[tuple[str, float], str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        twin: RunningTwin,
        project: str,
        *,
        http2: bool = True,
        now: Callable[[], float] = time.time,
    ) -> Self:
        """Return a client for a project of the twin, with an account made now."""
        tls = ssl.create_default_context(cafile=str(twin.ca_file))
        client = httpx.Client(http1=not http2, http2=http2, verify=tls, trust_env=False)
        return cls(twin, json.loads(twin.make_service_account(project)), client, now)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.close()

    def assertion(self, *, key: str | None = None, **changes: Any) -> str:
        """Return a signed assertion of the account; ``changes`` are claims, None leaves one out."""
        now = int(self.now())
        claims = {
            "iss": self.account["client_email"],
            "scope": SCOPE,
            "aud": self.account["token_uri"],
            "iat": now,
            "exp": now + 3600,
        } | changes
        said = {name: value for name, value in claims.items() if value is not None}
        headers = {"kid": self.account["private_key_id"]}
        return jwt.encode(said, key or self.account["private_key"], "RS256", headers=headers)

    def ask_token(self, assertion: str, grant: str = GRANT_TYPE) -> httpx.Response:
        """Ask for an access token."""
        form = {"grant_type": grant, "assertion": assertion}
        return self.client.post(self.twin.oauth_url, data=form)

    def access_token(self, **changes: Any) -> str:
        """Return a new access token."""
        return str(self.ask_token(self.assertion(**changes)).json()["access_token"])

    def own_token(self) -> str:
        """Return an access token of the account, the same for an hour."""
        key = (self.account["client_email"], self.now() // 3600)
        if key not in self.issued:
            self.issued[key] = self.access_token()
        return self.issued[key]

    def post(
        self, message: Any, *, access: str | None = None, project: str | None = None, **more: Any
    ) -> httpx.Response:
        """Post a message to the account's project, or another; an empty token leaves it out."""
        token = self.own_token() if access is None else access
        project = project or self.account["project_id"]
        return self.client.post(
            f"{self.twin.fcm_url}/v1/projects/{project}/messages:send",
            headers={"authorization": f"Bearer {token}"} if token else {},
            json={"message": message, **more},
        )


def code_of(answer: httpx.Response) -> str | None:
    """Return FCM's own code in an answer."""
    details = answer.json()["error"].get("details", [])
    return next((str(one["errorCode"]) for one in details if "FcmError" in one["@type"]), None)


def fields_of(answer: httpx.Response) -> list[str]:
    """Return the fields that an answer finds fault with."""
    details = answer.json()["error"].get("details", [])
    violations = [one["fieldViolations"] for one in details if "BadRequest" in one["@type"]]
    return [str(one.get("field", "")) for listed in violations for one in listed]
