"""Secrets are planted by real requests, and then looked for wherever the server tells something."""

import base64
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import jwt
import pytest
from cryptography.fernet import Fernet
from tests.console import Desk, Visitor, open_console, unhurried
from tests.postbox import Mailbox, start_mailbox
from tests.stored import stored_in

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.delivery.observe.logs import Logs
from handbell.server.routes import ROUTES
from handbell.settings import Settings
from handbell.system import System
from handbell.twin.certificates import Authority
from handbell.twin.threaded import RunningTwin, start_twin

MAIL, OTHER = "user1@example.com", "test@4d.com"
SENDER = "push@example.com"
IDENTITY_KEY: Final = "planted identity key of forty-two letters."
PASSWORD: Final = "planted password of an operator"
SMTP_PASSWORD: Final = "planted/password@mail"
FILE_PASSWORD: Final = "planted password of a certificate"
_LONG: Final = 16
OURS: Final = ("handbell", "aiosmtplib", "asyncio", "sqlalchemy", "alembic")
"""Whose log records are the server's: the rest are those of the tests' clients and mail server."""


@dataclass
class Planted:
    """What may be told nowhere, by name: each as the texts or bytes by which it is recognised."""

    needles: dict[str, list[bytes]] = field(default_factory=dict)

    def add(self, name: str, *secrets: str | bytes) -> None:
        """Plant a secret: as it is, as an address and as JSON or a page would write it."""
        known = self.needles.setdefault(name, [])
        for secret in secrets:
            if isinstance(secret, bytes):
                known += [secret, secret.hex().encode(), base64.b64encode(secret)]
                continue
            forms = {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}
            forms |= {base64.b64encode(secret.encode()).decode()}
            known += [form.encode() for form in sorted(forms)]

    def found_in(self, told: bytes) -> list[str]:
        """Return the names of the secrets that a text tells."""
        return [name for name, all_of in self.needles.items() if any(one in told for one in all_of)]


@dataclass
class House:
    """A server with its console, two apps, a mail server, and all that its clients were told."""

    desk: Desk
    twin: RunningTwin
    mailbox: Mailbox
    app: App
    linked: App
    planted: Planted
    told: list[tuple[str, bytes]] = field(default_factory=list)

    def note(self, answer: httpx.Response) -> None:
        """Remember an answer, its headers too."""
        answer.read()
        asked = f"{answer.request.method} {answer.request.url.path} {answer.status_code}"
        headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        self.told.append((asked, headers.encode() + b"\n\n" + answer.content))

    def client(self, bearer: str | None = None) -> httpx.Client:
        """Return a client whose answers are remembered."""
        return self.desk.server.client(bearer, event_hooks={"response": [self.note]})

    def ask(self, method: str, path: str, bearer: str | None, status: int, **how: Any) -> Any:
        """Ask below /v1 as somebody and return what the answer says."""
        with self.client(bearer) as client:
            answer = client.request(method, f"/v1{path}", **how)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content and "ndjson" not in str(answer.headers) else {}

    def shown_once(self, name: str, secret: str) -> str:
        """Plant what the last answer was there to show; that answer shows nothing else."""
        asked, told = self.told.pop()
        assert secret.encode() in told, asked
        assert self.planted.found_in(told) == [], asked
        self.planted.add(name, secret)
        # The secret part of an API key; a cookie may have an underscore anywhere.
        part = secret.rpartition("_")[2]
        if len(part) >= _LONG:
            self.planted.add(name, part)
        return secret


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Give a server whose settings hold secrets of their own."""
    planted = Planted()
    authority = Authority.open(tmp_path / "authority")
    secret_key = Fernet.generate_key().decode()
    planted.add("the secret key", secret_key, base64.urlsafe_b64decode(secret_key))
    planted.add("the mail server's password", SMTP_PASSWORD)
    with (
        start_twin(tmp_path / "twin") as twin,
        start_mailbox(tls=authority.server_context(), login=(SENDER, SMTP_PASSWORD)) as mailbox,
    ):
        system = System(
            Settings.load(
                home=tmp_path / "home",
                secret_key=secret_key,
                apns_production_url=twin.production_url,
                apns_development_url=twin.development_url,
                apns_ca_file=twin.ca_file,
                mail_from=SENDER,
                smtp_url=f"smtp://{quote(SENDER)}:{quote(SMTP_PASSWORD, safe='')}@127.0.0.1:"
                f"{mailbox.port}?tls=starttls&ca_file={authority.ca_file}",
            )
        )
        app = system.apps.add("TEAM123456", "com.sample.myapp", name="My App")
        linked = system.apps.add("TEAM123456", "com.sample.linked", name="Linked")
        for one in (app, linked):
            twin.add_app(one.id, one.name)
        with open_console(system, limiter=unhurried()) as desk:
            yield House(desk, twin, mailbox, app, linked, planted)
        system.database.close()


def test_nothing_that_the_server_tells_holds_a_secret(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Used rightly and wrongly, no secret is in a log, an answer, a page, an export or the file."""
    caplog.set_level(logging.DEBUG)
    lines = io.StringIO()
    house.desk.system.hooks.add(Logs(lines, is_terminal=False, level="debug"))
    with _signed_in(house) as visitor:
        administering, ids = _plant(house, visitor)
        _make_mistakes(house, visitor, administering, ids)
        _read_everything(house, visitor, administering, ids)
        _break(house, administering)
    logged = "\n".join(
        caplog.handler.format(one)
        for one in caplog.get_records("call")
        if one.name.startswith(OURS)
    )
    audited = repr(house.desk.system.audit.list(limit=1000))
    assert "Traceback" in logged
    assert lines.getvalue().count("\n") > 1
    assert "api-key.add" in audited
    places = [*house.told, ("the log", logged.encode())]
    places += [("the lines of events", lines.getvalue().encode()), ("the trail", audited.encode())]
    places += [
        (file.name, stored_in(file)) for file in (tmp_path / "home").rglob("*") if file.is_file()
    ]
    assert any(told.startswith(b"SQLite format 3") for _, told in places)
    assert {place: found for place, told in places if (found := house.planted.found_in(told))} == {}
    assert set(house.planted.needles) >= {
        "a key of Apple's",
        "an API key",
        "a session's secret",
        "an identity key",
        "an identity token",
        "a webhook's secret",
        "an operator's password",
        "an invitation",
        "a mailed link",
        "a sign-in",
        "the mail server's password",
        "the secret key",
    }


@contextmanager
def _signed_in(house: House) -> Iterator[Visitor]:
    """Accept an invitation with a planted password; give who is signed in then."""
    invitation = house.desk.system.operators.invite()
    house.planted.add("an operator's password", PASSWORD)
    form = {"mail": "operator@example.com", "password": PASSWORD, "again": PASSWORD}
    headers = {"origin": house.desk.url, "sec-fetch-site": "same-origin"}
    with house.client() as client:
        client.headers.update(headers)
        accepted = client.post(f"/console/invitation/{invitation}", data=form)
        assert accepted.status_code == 303, accepted.text
        for cookie in client.cookies.values():
            house.shown_once("a sign-in", cookie)
        house.planted.add("an invitation", invitation)
        wrong = {**form, "password": f"{PASSWORD}!"}
        assert client.post("/console/sign-in", data=wrong).status_code == 422
        assert client.get(f"/console/invitation/{invitation}").status_code < 500
        yield Visitor(client)


def _plant(house: House, visitor: Visitor) -> tuple[str, dict[str, str]]:
    """Use the API and the console rightly; return a key and ids for the places of paths."""
    path, linked = f"/apps/{house.app.id}", f"/apps/{house.linked.id}"
    console = f"/console/apps/{house.app.id}"
    visitor.post("/console/settings/api-keys", {"name": "planted", "scope": "administer"})
    (made,) = set(re.findall(r"hbk_\w{8}_\w{32}", house.told[-1][1].decode()))
    administering = house.shown_once("an API key", made)
    sending = house.ask(
        "POST", "/api-keys", administering, 201, json={"name": "s", "scopes": ["send"]}
    )
    house.shown_once("an API key", sending["key"])
    visitor.post("/console/settings/operators", {"mail": OTHER})
    (link,) = set(re.findall(r"/console/invitation/(\w+)", house.told[-1][1].decode()))
    house.shown_once("an invitation", link)

    for number in range(2):
        key = make_key(house.app.apple.team_id)
        house.twin.add_key(key.team_id, key.key_id, key.public_key_pem)
        text = key.private_key_pem().decode()
        scalar = key.private_key.private_numbers().private_value.to_bytes(32, "big")
        house.planted.add("a key of Apple's", scalar, *text.splitlines()[2:3])
        if number:
            file = (f"AuthKey_{key.key_id}.p8", text.encode())
            visitor.post(f"{console}/keys", files={"key_file": file})
        else:
            sent = {"key": text, "key_id": key.key_id}
            house.ask("POST", f"{path}/credentials", administering, 201, json=sent)
    house.planted.add("an identity key", IDENTITY_KEY)
    token_proof = {"proof": "token", "identity_key": IDENTITY_KEY}
    house.ask("PATCH", path, administering, 200, json=token_proof)
    visitor.post(f"{console}/proof", token_proof)
    visitor.post(f"/console/apps/{house.linked.id}/proof", {"proof": "link"})
    hook = {"url": "https://hooks.example.invalid/bell"}
    hooked = house.ask("POST", f"{path}/webhooks", administering, 201, json=hook)
    house.shown_once("a webhook's secret", hooked["secret"])

    phone = house.twin.add_phone(mail=MAIL, app=house.app.id)
    identity = _identity_token(house)
    body = {"identity_token": identity, "device_token": phone.token}
    session = house.ask("POST", f"{path}/sessions", None, 201, json=body)
    house.shown_once("a session's secret", session["secret"])
    house.mailbox.answers.append(f"451 {SMTP_PASSWORD} is no good today")
    for number in (1, 2):
        body = {"mail": OTHER, "device_token": f"{number:064x}"}
        asked = house.ask("POST", f"{linked}/sessions", None, 202, json=body)
        house.shown_once("a session's secret", asked["secret"])
    mailed = house.mailbox.secret()
    with house.client() as client:
        for method in ("GET", "POST", "GET"):
            assert client.request(method, f"/prove/{mailed}").status_code in (200, 410)
    house.planted.add("a mailed link", mailed)

    said = {"notification": {"title": "Hello"}, "recipients": [MAIL]}
    wait = {"Prefer": "wait=10"}
    sent = house.ask("POST", f"{path}/notifications", sending["key"], 200, json=said, headers=wait)
    content = {"notification": {"title": "Hello"}}
    house.ask("PUT", f"{path}/templates/hello", administering, 201, json=content)
    current = {"time_zone": "Europe/Paris"}
    house.ask("PATCH", f"{path}/sessions/current", session["secret"], 200, json=current)
    return administering, {
        "app": house.app.id,
        "key_id": key.key_id,
        "webhook": str(hooked["id"]),
        "prefix": administering.rpartition("_")[0],
        "session": str(session["id"]),
        "mail": MAIL,
        "id": sent["id"],
        "notification": sent["id"],
        "name": "hello",
        "act": "close",
        "secret": "nothing",
        "path": "",
        "rest": "nowhere",
        "of a device": session["secret"],
        "identity": identity,
    }


def _identity_token(house: House, **changes: Any) -> str:
    """Return a planted token that the app's back end would have signed."""
    now = int(house.desk.system.now())
    claims = {"aud": house.app.id, "sub": MAIL, "iat": now, "exp": now + 300, "jti": "planted"}
    token = jwt.encode({**claims, **changes}, IDENTITY_KEY, algorithm="HS256")
    house.planted.add("an identity token", token, token.rpartition(".")[2])
    return token


def _make_mistakes(
    house: House, visitor: Visitor, administering: str, ids: Mapping[str, str]
) -> None:
    """Send the same secrets where they do not belong, or not in the way that is asked for."""
    path, console = f"/apps/{house.app.id}", f"/console/apps/{house.app.id}"
    device = ids["of a device"]
    pem = make_key(house.app.apple.team_id).private_key_pem().decode()
    house.planted.add("a key of Apple's", *pem.splitlines()[2:3])
    house.planted.add("a certificate's password", FILE_PASSWORD)
    for key in (
        {"key": pem, "key_id": "ABC"},
        {"key": pem[:-40], "key_id": "ABCDE12345"},
        {"key": {"text": pem}, "key_id": "ABCDE12345"},
        {"key": pem, "key_id": "ABCDE12345", "colour": "blue"},
        {"certificate": pem, "password": FILE_PASSWORD},
        {"certificate": pem, "password": [FILE_PASSWORD]},
    ):
        house.ask("POST", f"{path}/credentials", administering, 422, json=key)
    visitor.post(f"{console}/keys", files={"key_file": ("AuthKey_ABCDE12345.p8", pem[:-40])})
    visitor.post(f"{console}/keys", {"password": FILE_PASSWORD}, files={"key_file": ("a.p12", pem)})
    for change in (
        {"proof": "token", "identity_key": [IDENTITY_KEY]},
        {"proof": "token", "identity_key": IDENTITY_KEY, "colour": "blue"},
        {"proof": "guess", "identity_key": IDENTITY_KEY},
        {"identity_key": f"-----BEGIN PUBLIC KEY-----\n{IDENTITY_KEY}"},
    ):
        house.ask("PATCH", path, administering, 422, json=change)
    for form in ({"proof": "guess"}, {"proof": "token", "colour": "blue"}):
        visitor.post(f"{console}/proof", {**form, "identity_key": IDENTITY_KEY})
    for token in (
        ids["identity"],
        f"{_identity_token(house, jti='late', exp=1)}",
        f"{_identity_token(house, jti='other', aud='another')}",
        f"{_identity_token(house, jti='short')}x",
    ):
        body = {"identity_token": token, "device_token": "ab" * 32}
        house.ask("POST", f"{path}/sessions", None, 403, json=body)
    listed = {"identity_token": [_identity_token(house, jti="list")], "device_token": "ab" * 32}
    house.ask("POST", f"{path}/sessions", None, 422, json=listed)
    receipts = f"{path}/sessions/current/receipts"
    house.ask("POST", receipts, device, 422, json={"apns_id": device, "event": device})
    house.ask("GET", path, device, 401)
    house.ask("GET", f"{path}/sessions/current", f"{device}x", 401)
    house.ask("GET", path, f"{administering}x", 401)
    house.ask("GET", "/apps", None, 401, headers={"Authorization": f"Basic {administering}"})
    house.ask("GET", "/apps", None, 401, params={"key": administering})
    account = {"current": f"{PASSWORD}!", "password": f"{PASSWORD}?", "again": PASSWORD}
    visitor.post("/console/settings/account/password", account)


def _read_everything(
    house: House, visitor: Visitor, administering: str, ids: Mapping[str, str]
) -> None:
    """Read each route that can be read, as an operator, with a key and as a device."""
    with house.client(administering) as office, house.client(ids["of a device"]) as device:
        for method, template in ROUTES:
            if method != "GET":
                continue
            names = {"name": "console.css"} if template.startswith("/console") else {}
            where = re.sub(
                r"\{(\w+)(:path)?\}",
                lambda place, names=names: quote({**ids, **names}[place[1]]),  # type: ignore[misc]
                template,
            )
            for client in (visitor.client, office, device):
                assert client.get(where).status_code < 500, where
    asked = {one for one, _ in house.told}
    for found in (
        "/console/settings/audit",
        "/metrics",
        f"/v1/apps/{house.app.id}/sessions/export",
    ):
        assert f"GET {found} 200" in asked


def _break(house: House, administering: str) -> None:
    """Let the server make a mistake of its own while a secret is in its hands."""
    kept = house.desk.system.__dict__.pop("identities")
    house.desk.system.__dict__["identities"] = None
    change = {"proof": "token", "identity_key": IDENTITY_KEY}
    house.ask("PATCH", f"/apps/{house.app.id}", administering, 500, json=change)
    house.desk.system.__dict__["identities"] = kept
