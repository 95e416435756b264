"""Links that are mailed: from the request over a real mail server to the phone."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from bench.chaos import Clock
from sqlalchemy import select, text
from tests.outcomes import Outcomes
from tests.postbox import Mailbox, link_of, start_mailbox
from tests.serving import Server, start_server
from tests.stored import stored_in

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.response import Response
from handbell.errors import AppError, MailError, SettingsError
from handbell.registry.registration import Registration
from handbell.server.links.smtp import MailServer, mail_server
from handbell.settings import Settings
from handbell.storage.tables import metadata
from handbell.system import System
from handbell.twin.certificates import Authority
from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

MAIL, OTHER = "user1@example.com", "test@4d.com"
SENDER = "push@example.com"
MINUTE = 60


@dataclass
class House:
    """A server whose app proves devices by mailed links, with a twin and a mail server."""

    server: Server
    twin: RunningTwin
    mailbox: Mailbox
    app: App
    clock: Clock
    client: httpx.Client

    @property
    def path(self) -> str:
        """Where the app's sessions are."""
        return f"/v1/apps/{self.app.id}/sessions"

    def add_phone(self, mail: str = MAIL) -> Phone:
        """Make a phone that nobody has registered."""
        return self.twin.add_phone(mail=mail, app=self.app.id)

    def ask(self, phone: Phone | str, mail: str = MAIL, **more: Any) -> httpx.Response:
        """Ask for a link as a device does."""
        token = phone if isinstance(phone, str) else phone.token
        return self.client.post(self.path, json={"mail": mail, "device_token": token, **more})

    def send(self, to: str = MAIL) -> Response:
        """Send a notification to a person."""
        said = Notification.read({"title": "Hello"})
        engine = self.server.system.engine
        return self.server.run(engine.send(self.app, said, Recipients.read(to)))

    @property
    def outcomes(self) -> Outcomes:
        """What records the answers of push services."""
        return Outcomes(self.server.system.database, now=self.server.system.now)

    def hurry(self, seconds: float = 0) -> None:
        """Let time pass, and the mailer look again."""
        self.clock.move(seconds)

        async def look() -> None:
            self.server.context.link_asked.set()

        self.server.run(look())


OpenHouse = Callable[..., AbstractContextManager[House]]


@pytest.fixture(scope="module")
def clock() -> Clock:
    """Return the clock of all houses and of the twin."""
    return Clock()


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[RunningTwin]:
    """Run one twin for all houses: each has a key of its own."""
    with start_twin(tmp_path_factory.mktemp("twin"), now=clock) as twin:
        yield twin


@pytest.fixture
def open_house(tmp_path: Path, twin: RunningTwin, clock: Clock) -> OpenHouse:
    """Return what runs a house around a mail server."""

    @contextmanager
    def opening(mailbox: Mailbox, smtp_url: str = "") -> Iterator[House]:
        settings = Settings.load(
            home=tmp_path / "home",
            apns_production_url=twin.production_url,
            apns_development_url=twin.development_url,
            apns_ca_file=twin.ca_file,
            smtp_url=smtp_url or f"smtp://127.0.0.1:{mailbox.port}",
            mail_from=SENDER,
        )
        system = System(settings, now=clock)
        app = system.apps.add("TEAM123456", "com.sample.myapp", name="<Ring> & Co")
        key = make_key(app.apple.team_id)
        system.apps.add_credential(app, key)
        system.identities.set(app, proof="link")
        twin.add_key(key.team_id, key.key_id, key.public_key_pem)
        twin.add_app(app.id, app.name)
        with start_server(system, has_console=False) as server, server.client() as client:
            yield House(server, twin, mailbox, app, clock, client)
        system.database.close()

    return opening


@pytest.fixture
def house(open_house: OpenHouse) -> Iterator[House]:
    """Give a house with a mail server that takes everything."""
    with start_mailbox() as mailbox, open_house(mailbox) as house:
        yield house


def test_a_link_proves_a_device(house: House) -> None:
    """Until it is opened and confirmed nothing reaches the phone; then the phone shows it."""
    phone = house.add_phone()
    asked = house.ask(phone)
    assert asked.status_code == 202
    secret = asked.json()["secret"]
    assert asked.json() | {"secret": "", "id": 0} == {
        "id": 0,
        "status": "pending",
        "secret": "",
        "session": None,
        "warnings": [],
    }
    assert not house.send().success
    link = house.mailbox.secret()
    asks = house.client.get(f"/prove/{link}")
    assert asks.status_code == 200
    assert "Is this your device?" in asks.text
    assert "&lt;Ring&gt; &amp; Co" in asks.text
    assert "<Ring>" not in asks.text
    assert MAIL in asks.text
    assert "script" not in asks.text
    assert not house.send().success, "a page that was only looked at proves nothing"
    assert house.client.post(f"/prove/{link}").status_code == 200
    assert house.send().success
    assert len(house.twin.phone(phone.id).cards) == 1
    own = house.client.get(f"{house.path}/current", headers={"Authorization": f"Bearer {secret}"})
    assert (own.json()["status"], own.json()["mail"]) == ("active", MAIL)


def test_a_link_serves_once(house: House) -> None:
    """The second time it is refused, by looking and by confirming."""
    house.ask(house.add_phone())
    link = house.mailbox.secret()
    assert house.client.post(f"/prove/{link}").status_code == 200
    for method in ("GET", "POST"):
        again = house.client.request(method, f"/prove/{link}")
        assert again.status_code == 410
        assert "was used already" in again.text


@pytest.mark.parametrize(("minutes", "status"), [(14, 200), (16, 410)])
def test_a_link_serves_for_a_quarter_of_an_hour(house: House, minutes: int, status: int) -> None:
    """After its time it is refused, and the device stays as it was."""
    house.ask(house.add_phone())
    link = house.mailbox.secret()
    house.clock.move(minutes * MINUTE)
    for method in ("GET", "POST"):
        answer = house.client.request(method, f"/prove/{link}")
        assert answer.status_code == status
        assert ("has expired" in answer.text) is (status == 410)
    assert house.send().success is (status == 200)


def test_a_link_that_nobody_mailed_is_not_known(house: House) -> None:
    """A guess is answered 404, with a page."""
    answer = house.client.post("/prove/" + "a" * 32)
    assert answer.status_code == 404
    assert "not known" in answer.text
    assert house.client.get("/prove/%3Cscript%3E").text.count("<script") == 0


def test_of_many_openings_at_once_one_proves(house: House) -> None:
    """A link that is confirmed several times in one moment serves once."""
    house.ask(house.add_phone())
    link = house.mailbox.secret()

    async def open_often() -> list[int]:
        async with httpx.AsyncClient(base_url=house.server.url, trust_env=False) as client:
            answers = await asyncio.gather(*(client.post(f"/prove/{link}") for _ in range(8)))
            return sorted(answer.status_code for answer in answers)

    assert asyncio.run(open_often()) == [200] + [410] * 7


def test_the_answer_does_not_say_whether_an_address_is_known(house: House) -> None:
    """A known address with a device, and one never heard of, are answered alike."""
    house.server.system.registry.register(house.app, OTHER, "ef" * 32)
    known, unknown = house.ask("ab" * 32, OTHER), house.ask("cd" * 32, "never@example.com")
    assert known.status_code == unknown.status_code == 202
    assert _without_ids(known) == _without_ids(unknown)
    assert set(known.headers) == set(unknown.headers)
    mails = house.mailbox.wait(2)
    assert {mail["To"] for mail in mails} == {OTHER, "never@example.com"}
    assert _body(mails[0]) == _body(mails[1])


def _without_ids(answer: httpx.Response) -> dict[str, Any]:
    return {**answer.json(), "id": 0, "secret": len(answer.json()["secret"])}


def _body(mail: Any) -> str:
    return str(mail.get_body(("plain",)).get_content()).replace(link_of(mail), "")


def test_too_many_links_are_refused_alike(house: House) -> None:
    """An address gets a few mails, known or not; and the answer says how long to wait."""
    house.server.system.registry.register(house.app, OTHER, "ef" * 32)
    answers = {
        mail: [house.ask(f"{number:08x}", mail) for number in range(6)]
        for mail in (OTHER, "never@example.com")
    }
    for refused in answers.values():
        assert [answer.status_code for answer in refused] == [202] * 4 + [429] * 2
        assert int(refused[-1].headers["Retry-After"]) > 60
        assert refused[-1].json()["code"] == "rate-limited"
    one, other = (refused[-1].json() for refused in answers.values())
    assert {**one, "fix": ""} == {**other, "fix": ""}
    assert house.ask("ab" * 32, "third@example.com").status_code == 202


def test_one_client_cannot_have_mails_sent_to_everybody(house: House) -> None:
    """Whoever names one address after the other is stopped."""
    codes = [house.ask(f"{one:08x}", f"user{one}@example.com").status_code for one in range(35)]
    assert codes == [202] * 30 + [429] * 5


def test_a_mail_says_what_it_is_about(house: House) -> None:
    """It has two parts and one link, names the app and no device's own words, and tracks nobody."""
    house.ask(house.add_phone(), device="Win a prize at evil.example", locale="fr")
    (mail,) = house.mailbox.wait()
    assert mail["From"] == '"<Ring> & Co" <push@example.com>'
    assert mail["To"] == MAIL
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@example.com>")
    text_part, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text_part is not None
    assert html is not None
    assert "<Ring> & Co" in text_part.get_content()
    assert "&lt;Ring&gt; &amp; Co" in html.get_content()
    assert "evil" not in mail.as_string()
    assert "img" not in html.get_content()
    assert f"{house.server.url}/prove/{link_of(mail)}" in text_part.get_content()


def test_only_the_digest_of_a_link_is_stored(house: House, tmp_path: Path) -> None:
    """Neither the link's secret nor the session's stands anywhere in the database."""
    secret = house.ask(house.add_phone()).json()["secret"]
    link = house.mailbox.secret()
    house.client.post(f"/prove/{link}")
    with house.server.system.database.read() as connection:
        for table in metadata.sorted_tables:
            rows = str(connection.execute(select(table)).all())
            assert link not in rows
            assert secret not in rows
            assert secret.removeprefix("hbs_") not in rows
        connection.execute(text("SELECT 1"))
    assert link.encode() not in stored_in(tmp_path / "home")


def test_a_mail_server_that_is_busy_is_tried_again(house: House) -> None:
    """What could not be handed in goes out later, under a new secret that serves."""
    house.mailbox.answers = ["451 Try again later", "421 Too busy"]
    house.ask(house.add_phone())
    deadline = time.monotonic() + 10
    while not house.mailbox.mails and time.monotonic() < deadline:
        time.sleep(0.05)
        house.hurry(3)
    assert house.mailbox.answers == []
    assert house.client.post(f"/prove/{house.mailbox.secret()}").status_code == 200


def test_an_address_that_does_not_exist_is_given_up(house: House) -> None:
    """The caller sees no difference, and the server does not try for ever."""
    assert house.ask("ab" * 32, "nobody@example.com").status_code == 202
    proofs = house.server.system.proofs
    deadline = time.monotonic() + 10
    while proofs.next_due() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert house.mailbox.mails == []


def test_a_link_outlives_a_server_that_stopped_before_it_was_mailed(tmp_path: Path) -> None:
    """The next server finds what was asked for, mails it, and the link serves."""
    with start_mailbox() as mailbox:
        url = f"smtp://127.0.0.1:{mailbox.port}"
        system = System(Settings.load(home=tmp_path, smtp_url=url, mail_from=SENDER))
        app = system.apps.add("TEAM123456", "com.sample.myapp")
        system.proofs.ask(app, Registration.read(MAIL, "ab" * 32, status="pending", at=1))
        with start_server(system, has_console=False) as server, server.client() as client:
            assert client.post(f"/prove/{mailbox.secret()}").status_code == 200
        assert [one.status for one in system.registry.sessions(app)] == ["active"]
        system.database.close()


def test_a_link_whose_mail_was_on_its_way_when_the_server_stopped_is_due(tmp_path: Path) -> None:
    """The next server need not wait for the lease of the one that stopped."""
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as until_later:
        url = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
        system = System(Settings.load(home=tmp_path, smtp_url=url, mail_from=SENDER))
        app = system.apps.add("TEAM123456", "com.sample.myapp")
        system.proofs.ask(app, Registration.read(MAIL, "ab" * 32, status="pending", at=1))
        with start_server(system, has_console=False):
            until_later.enter_context(silent.accept()[0])
            assert system.proofs.take_due() == []
        (link,) = system.proofs.take_due()
        assert link.mail == MAIL
        system.database.close()


def test_a_device_that_asks_again_gets_one_valid_link(house: House) -> None:
    """With its secret it asks for the same session; the former link is void then."""
    phone = house.add_phone()
    first = house.ask(phone).json()
    former = house.mailbox.secret()
    own = {"Authorization": f"Bearer {first['secret']}"}
    body = {"mail": MAIL, "device_token": phone.token}
    again = house.client.post(house.path, json=body, headers=own)
    assert again.status_code == 202
    assert (again.json()["id"], again.json()["secret"]) == (first["id"], None)
    link = house.mailbox.secret(2)
    assert house.client.post(f"/prove/{former}").status_code == 404
    assert house.client.post(f"/prove/{link}").status_code == 200
    repeated = house.client.post(house.path, json=body, headers=own)
    assert (repeated.status_code, repeated.json()["status"]) == (200, "active")
    assert len(house.mailbox.mails) == 2


def test_a_repeat_without_the_secret_needs_a_new_proof(house: House) -> None:
    """The former session and its secret serve until the new link was opened, and not after."""
    phone = house.add_phone()
    first = house.ask(phone).json()
    house.client.post(f"/prove/{house.mailbox.secret()}")
    second = house.ask(phone).json()
    old, new = ({"Authorization": f"Bearer {one['secret']}"} for one in (first, second))
    assert house.client.patch(f"{house.path}/current", json={}, headers=old).status_code == 200
    assert house.send().success
    assert house.client.post(f"/prove/{house.mailbox.secret(2)}").status_code == 200
    assert house.client.get(f"{house.path}/current", headers=old).status_code == 401
    answer = house.client.get(f"{house.path}/{second['id']}", headers=new)
    assert (answer.status_code, answer.json()["id"]) == (200, first["id"])
    assert house.send().success
    assert len(house.twin.phone(phone.id).cards) == 2


def test_links_that_were_never_opened_are_forgotten(house: House) -> None:
    """A day later the claim is gone, and with it a person of whom nothing else is known."""
    registry = house.server.system.registry
    registry.register(house.app, OTHER, "ef" * 32)
    house.ask("ab" * 32, OTHER)
    house.ask("cd" * 32, "never@example.com")
    house.mailbox.wait(2)
    proofs = house.server.system.proofs
    assert proofs.forget_old() == 0
    house.clock.move(25 * 60 * MINUTE)
    assert proofs.forget_old() == 2
    assert registry.mail_addresses(house.app) == [OTHER]
    assert [one.status for one in registry.sessions(house.app)] == ["active"]


def test_mail_goes_out_encrypted_and_signed_in(tmp_path: Path, open_house: OpenHouse) -> None:
    """STARTTLS and the login of the settings are used; a password is not shown."""
    authority = Authority.open(tmp_path / "authority")
    tls = authority.server_context()
    login = ("push@example.com", "p@ss/word")
    with start_mailbox(tls=tls, login=login) as mailbox:
        url = (
            f"smtp://push%40example.com:p%40ss%2Fword@127.0.0.1:{mailbox.port}"
            f"?tls=starttls&ca_file={authority.ca_file}"
        )
        with open_house(mailbox, url) as house:
            assert house.ask("ab" * 32).status_code == 202
            mailbox.wait()
            (session,) = mailbox.sessions
            assert session.ssl is not None
            assert session.authenticated
            shown = repr(MailServer.of(house.server.system.settings))
            assert "p@ss" not in shown
            assert "p%40ss" not in repr(house.server.system.settings)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.com", (587, "starttls")),
        ("smtp://mail.example.com:25?tls=none", (25, "none")),
        ("smtps://mail.example.com", (465, "tls")),
        ("smtp://localhost:2525", (2525, "none")),
        ("smtp://127.0.0.1", (587, "none")),
        ("smtp://127.0.0.1?tls=starttls", (587, "starttls")),
    ],
)
def test_how_a_mail_server_is_reached(tmp_path: Path, url: str, expected: tuple[int, str]) -> None:
    """STARTTLS is required except on loopback, unless the address says otherwise."""
    server = MailServer.of(Settings.load(home=tmp_path, smtp_url=url, mail_from=SENDER))
    assert server is not None
    assert (server.port, server.security) == expected


@pytest.mark.parametrize(
    "url", ["smtp://a.example?tls=maybe", "smtps://a.example?tls=none", "smtp://a.example?x=1"]
)
def test_an_option_that_a_mail_server_cannot_have_is_named(tmp_path: Path, url: str) -> None:
    """A misspelt option must not send mail in the clear."""
    with pytest.raises(SettingsError, match="HANDBELL_SMTP_URL"):
        MailServer.of(Settings.load(home=tmp_path, smtp_url=url, mail_from=SENDER))


def test_without_a_mail_server_nobody_is_half_registered(tmp_path: Path) -> None:
    """Operators are told, devices get a clear answer, and nothing is stored."""
    system = System(Settings.load(home=tmp_path))
    app = system.apps.add("TEAM123456", "com.sample.myapp")
    with pytest.raises(AppError, match="mail server"):
        system.identities.set(app, proof="link")
    with pytest.raises(MailError, match="HANDBELL_SMTP_URL"):
        mail_server(system.settings)
    # As it is when the setting is taken away later.
    before = System(Settings.load(home=tmp_path, smtp_url="smtp://127.0.0.1", mail_from=SENDER))
    before.identities.set(app, proof="link")
    before.database.close()
    findings = asyncio.run(system.doctor.check_up(app))
    assert [one.verdict for one in findings if one.check == "proof"] == ["wrong"]
    with start_server(system, has_console=False) as server, server.client() as client:
        body = {"mail": MAIL, "device_token": "ab" * 32}
        answer = client.post(f"/v1/apps/{app.id}/sessions", json=body)
    assert (answer.status_code, answer.json()["code"]) == (503, "mail-unavailable")
    assert system.registry.sessions(app) == []
    assert system.registry.users(app) == []
    system.database.close()


def test_links_are_mailed_to_the_mailbox_that_is_proven(house: House) -> None:
    """Envelope and head name the same one, for domains that IDNA 2003 gave to somebody else too."""
    wanted = {
        "dora@straße.de": "dora@xn--strae-oqa.de",
        "Sofia@φύλλος.gr": "sofia@xn--wxaammq6b.gr",
        "ｄｏｒａ@ｅｘａｍｐｌｅ.com": "dora@example.com",  # noqa: RUF001 - full width
        "DORA@BÜCHER.example": "dora@xn--bcher-kva.example",
        "a?b=c@example.com": "a?b=c@example.com",
    }
    for number, mail in enumerate(wanted, start=1):
        assert house.ask(f"{number:064x}", mail).status_code == 202
        house.mailbox.wait(number)
    assert [one.rcpt_tos for one in house.mailbox.envelopes] == [[to] for to in wanted.values()]
    heads = [[one.addr_spec for one in mail["To"].addresses] for mail in house.mailbox.mails]
    assert heads == [[to] for to in wanted.values()]


@pytest.mark.parametrize(
    "mail",
    [
        "=?utf-8?q?dora?=@victim.example",
        "x=?utf-8?b?ZG9yYQ==?=@victim.example",
        '"dora@victim.example, x"@example.com',
        "dora@victim.example,x@example.com",
        "<dora@victim.example>@example.com",
        "@relay.example:dora@victim.example",
    ],
)
def test_what_a_mailer_could_read_otherwise_is_refused(house: House, mail: str) -> None:
    """Nothing is mailed, and the limit of the address that it hides is not gone round."""
    assert house.ask("ab" * 32, mail).status_code == 422
    assert house.mailbox.mails == []
    assert house.server.system.registry.sessions(house.app) == []


def _prove(house: House, phone: Phone | str, mail: str) -> dict[str, str]:
    """Register a device by a mailed link, and return the headers that it speaks with."""
    number = len(house.mailbox.mails) + 1
    told = house.ask(phone, mail).json()
    assert house.client.post(f"/prove/{house.mailbox.secret(number)}").status_code == 200
    return {"Authorization": f"Bearer {told['secret']}"}


def _tries(house: House, headers: dict[str, str], token: str) -> set[int]:
    """Return what a device is answered that tries whatever a secret can do."""
    own = f"{house.path}/current"
    answers = [
        house.client.get(own, headers=headers),
        house.client.patch(own, json={}, headers=headers),
        house.client.patch(own, json={"device_token": token}, headers=headers),
        house.client.post(house.path, json={}, headers=headers),
        house.client.post(house.path, json={"device_token": token}, headers=headers),
        house.client.delete(own, headers=headers),
    ]
    return {answer.status_code for answer in answers}


def test_an_old_secret_takes_no_token_back(house: House) -> None:
    """Apple called the device gone, another person proved it: the former secret is void."""
    phone = house.add_phone()
    former = _prove(house, phone, MAIL)
    registry = house.server.system.registry
    house.outcomes.gone(registry.sessions_of(house.app, MAIL)[0])
    _prove(house, phone, OTHER)
    assert _tries(house, former, phone.token) == {401}
    assert [one.status for one in registry.sessions_of(house.app, OTHER)] == ["active"]
    assert [one.status for one in registry.sessions_of(house.app, MAIL)] == ["closed"]


def test_a_device_that_came_back_with_a_token_of_its_own_needs_no_mail(house: House) -> None:
    """What Apple called gone opens by its secret, unless another person holds the token."""
    theirs = house.add_phone(OTHER)
    own = _prove(house, house.add_phone(), MAIL)
    _prove(house, theirs, OTHER)
    registry = house.server.system.registry
    house.outcomes.gone(registry.sessions_of(house.app, MAIL)[0])
    current = f"{house.path}/current"
    for method, where in (("POST", house.path), ("PATCH", current)):
        taken = house.client.request(
            method, where, json={"device_token": theirs.token}, headers=own
        )
        assert (taken.status_code, taken.json()["code"]) == (403, "proof-required")
    again = house.client.post(house.path, json={"device_token": "cd" * 32}, headers=own)
    assert (again.status_code, again.json()["status"]) == (200, "active")
    assert len(house.mailbox.mails) == 2
    taken = house.client.patch(current, json={"device_token": theirs.token}, headers=own)
    assert taken.json()["code"] == "proof-required"
    # By a link it may: that is a proof.
    body = {"mail": MAIL, "device_token": theirs.token}
    assert house.client.post(house.path, json=body, headers=own).status_code == 202
    assert house.client.post(f"/prove/{house.mailbox.secret(3)}").status_code == 200
    assert [one.reason for one in registry.sessions_of(house.app, OTHER)] == ["moved"]


def test_who_signs_out_a_device_that_is_gone_is_signed_out(house: House) -> None:
    """The session was closed already; its secret opens it no more."""
    phone = house.add_phone()
    own = _prove(house, phone, MAIL)
    registry = house.server.system.registry
    house.outcomes.gone(registry.sessions_of(house.app, MAIL)[0])
    assert house.client.delete(f"{house.path}/current", headers=own).status_code == 204
    assert _tries(house, own, phone.token) == {401}


def test_a_claim_that_apple_calls_gone_proves_nothing(house: House) -> None:
    """A pending session stays pending: its secret must not open it as if it had been proven."""
    told = house.ask("ef" * 32).json()
    assert not house.outcomes.gone(told["id"])
    own = {"Authorization": f"Bearer {told['secret']}"}
    again = house.client.post(house.path, json={"device_token": "ef" * 32}, headers=own)
    assert again.json()["status"] == "pending"


def test_a_person_has_so_many_sessions(house: House) -> None:
    """What never worked goes first, then a registration is refused; claims displace claims only."""
    registry = house.server.system.registry
    registry.most_sessions = 2
    key = {"Authorization": f"Bearer {house.server.key('register')}"}

    def register(number: int) -> httpx.Response:
        body = {"mail": MAIL, "device_token": f"{number:064x}"}
        return house.client.post(house.path, json=body, headers=key)

    ids = [register(number).json()["id"] for number in (1, 2)]
    house.outcomes.accepted(ids[:1])
    third = register(3).json()["id"]
    assert registry.session(ids[1]).reason == "session-limit"
    house.outcomes.accepted([third])
    refused = register(4)
    assert (refused.status_code, refused.json()["code"]) == (409, "session-limit")
    assert "HANDBELL_SESSIONS_PER_USER" in refused.json()["fix"]
    claims = [house.ask(f"{number:064x}").json()["id"] for number in (5, 6, 7)]
    held = {one.id: one.status for one in registry.sessions_of(house.app, MAIL)}
    assert {held[ids[0]], held[third]} == {"active"}
    assert [held.get(claim) for claim in claims] == [None, "pending", "pending"]
    page = house.client.post(f"/prove/{house.mailbox.secret(3)}")
    assert (page.status_code, "too many devices" in page.text) == (409, True)
    registry.close(third, "closed")
    assert house.client.post(f"/prove/{house.mailbox.secret(3)}").status_code == 200
    batch = f'{{"mail": "{MAIL}", "device_token": "{"ab" * 32}"}}\n'
    lines = {**key, "Content-Type": "application/x-ndjson"}
    house.outcomes.accepted(one.id for one in registry.sessions_of(house.app, MAIL))
    told = house.client.post(f"{house.path}/import", content=batch, headers=lines).text
    assert "session-limit" in told
    assert '{"imported":0,"refused":1}' in told
