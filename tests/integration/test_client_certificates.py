"""Client certificates: loaded without a disk, and told where the host hangs up on them."""

import asyncio
import ssl
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hyperframe.frame import GoAwayFrame
from tests.conftest import APP
from tests.http2_server import LOOPS, Server, counting, opened, run, send, serve

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.gateways.http2 import Endpoint, Limits, Lost, NotSent, StreamResponse
from handbell.services.apns.credential import read_certificate
from handbell.settings import Settings
from handbell.system import System
from handbell.twin.certificates import Authority

TOPICS = ["com.sample.myapp"]
REFUSED = "ClientCertificateRefused"
MAIL = "jane@example.com"
PATIENT = Limits(in_flight=50, connect_timeout=8, request_timeout=8)
"""What is told here comes by how a connection ends, and by no clock."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a certificate authority that vouches for loopback."""
    return Authority.open(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make an authority that the server does not know."""
    return Authority.open(tmp_path_factory.mktemp("stranger"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems need a folder for it")
def test_a_certificate_needs_no_folder_that_can_be_written(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a read-only root and no /tmp a certificate is used all the same."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    pem = authority.issue_client_certificate(TOPICS)

    async def story() -> None:
        async with serve(authority, counting()) as url:
            endpoint = Endpoint(url, authority.ca_file, client_certificate=pem)
            (end,) = await send(endpoint, ["/ok-1"], PATIENT)
        assert isinstance(end, StreamResponse)

    run(story)


# A host that hangs up


class AtOnce(Server):
    """Closes as soon as the handshake is over, before it says a word."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Leave."""
        cast("asyncio.Transport", transport).close()


class ResetsAtOnce(Server):
    """Resets as soon as the handshake is over."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Leave without a farewell."""
        self.transport = cast("asyncio.Transport", transport)
        self.hang_up()


class AfterSettings(Server):
    """Greets, and closes when the other side has greeted as well."""

    def data_received(self, data: bytes) -> None:
        """Leave."""
        del data
        self.transport.close()


class AfterRequest(Server):
    """Closes at the first request, without an answer."""

    def answer(self, number: int) -> None:
        """Leave."""
        del number
        self.transport.close()


class ResetsAfterRequest(Server):
    """Resets at the first request, without an answer."""

    def answer(self, number: int) -> None:
        """Leave without a farewell."""
        del number
        self.hang_up()


class SaysWhy(Server):
    """Says at the first request by GOAWAY that it does not take the certificate."""

    def answer(self, number: int) -> None:
        """Say why, and leave."""
        del number
        said = GoAwayFrame(last_stream_id=0, additional_data=b'{"reason":"BadCertificate"}')
        self.transport.write(said.serialize())
        self.transport.close()


def _require(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
    def change(context: ssl.SSLContext) -> None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = context.maximum_version = version

    return change


def _as_is(context: ssl.SSLContext) -> None:
    del context


Kind = tuple[Callable[[ssl.SSLContext], None], type[Server], bool]
"""What TLS asks for, what the server does, and whether the certificate is of its authority."""

HANG_UPS: dict[str, Kind] = {
    "an alert in the handshake of TLS 1.2": (_require(ssl.TLSVersion.TLSv1_2), Server, False),
    "an alert after the handshake of TLS 1.3": (_require(ssl.TLSVersion.TLSv1_3), Server, False),
    "closed after the handshake": (_as_is, AtOnce, True),
    "closed after the handshake of TLS 1.2": (_require(ssl.TLSVersion.TLSv1_2), AtOnce, True),
    "reset after the handshake": (_as_is, ResetsAtOnce, True),
    "closed after the settings": (_as_is, AfterSettings, True),
    "closed after the first request": (_as_is, AfterRequest, True),
    "reset after the first request": (_as_is, ResetsAfterRequest, True),
    "told by GOAWAY": (_as_is, SaysWhy, True),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", HANG_UPS.values(), ids=HANG_UPS)
def test_a_host_that_hangs_up_may_refuse_the_certificate(
    authority: Authority, stranger: Authority, kind: Kind, loop: str
) -> None:
    """However a host ends the first connections, each request is told why that may be."""
    change, protocol, is_own = kind
    pem = (authority if is_own else stranger).issue_client_certificate(TOPICS)

    async def story() -> None:
        async with serve(authority, protocol, change=change) as url:
            endpoint = Endpoint(url, authority.ca_file, client_certificate=pem)
            ends = await send(endpoint, [f"/ok-{number}" for number in range(4)], PATIENT)
        assert {end.reason for end in ends if isinstance(end, NotSent | Lost)} == {REFUSED}, ends
        assert len(ends) == 4

    _run(story, loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", HANG_UPS.values(), ids=HANG_UPS)
def test_without_a_certificate_a_hang_up_is_the_networks(
    authority: Authority, kind: Kind, loop: str
) -> None:
    """A key has no part in how a connection ends."""
    _, protocol, _ = kind

    async def story() -> None:
        async with serve(authority, protocol) as url:
            ends = await send(Endpoint(url, authority.ca_file), ["/close-1"], PATIENT)
        assert all(end.reason != REFUSED for end in ends if isinstance(end, NotSent | Lost))

    _run(story, loop)


@pytest.mark.parametrize("wish", ["close", "reset", "goaway"])
def test_a_host_that_has_answered_does_not_refuse_the_certificate(
    authority: Authority, wish: str
) -> None:
    """Once it has answered, an end is a loss like any other: of this connection or the next."""
    pem = authority.issue_client_certificate(TOPICS)

    class Turns(Server):
        """Answers on the first connection, and ends each later one as the path asks."""

        connections = 0

    async def story() -> None:
        async with serve(authority, Turns) as url:
            endpoint = Endpoint(url, authority.ca_file, client_certificate=pem)
            async with opened(endpoint, PATIENT) as ask:
                assert isinstance((await ask(["/ok-1"]))[0], StreamResponse)
                ends = [*await ask([f"/{wish}-1"]), *await ask([f"/{wish}-2"])]
                assert isinstance((await ask(["/ok-2"]))[0], StreamResponse)
        assert all(end.reason != REFUSED for end in ends if not isinstance(end, StreamResponse)), (
            ends
        )

    run(story)


def test_a_certificate_that_was_taken_may_be_revoked(authority: Authority) -> None:
    """A host that answered, and then hangs up on connection after connection, is told at last."""
    pem = authority.issue_client_certificate(TOPICS)

    class Revoked(Server):
        """Answers on its first connection alone."""

        connections = 0

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            """Greet once, and hang up ever after."""
            if self.connections:
                cast("asyncio.Transport", transport).close()
            else:
                super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            """Answer, where it has greeted."""
            if hasattr(self, "h2"):
                super().data_received(data)

    async def story() -> None:
        async with serve(authority, Revoked) as url:
            endpoint = Endpoint(url, authority.ca_file, client_certificate=pem)
            async with opened(endpoint, PATIENT) as ask:
                assert isinstance((await ask(["/ok-1"]))[0], StreamResponse)
                ask.pool.renew()
                told: list[str] = []
                while REFUSED not in told:
                    (end,) = await ask([f"/ok-{len(told) + 2}"])
                    assert isinstance(end, NotSent), end
                    told.append(end.reason)
        assert told[0] == "ConnectionClosed"
        assert "Stalled" not in told

    run(story)


@pytest.mark.parametrize("kind", HANG_UPS.values(), ids=HANG_UPS)
def test_a_hang_up_is_told_everywhere(
    authority: Authority, stranger: Authority, tmp_path: Path, kind: Kind
) -> None:
    """Check-up, delivery, obstacles and `why` name the certificate; no session is harmed by it."""
    change, protocol, is_own = kind
    file = tmp_path / "push.pem"
    file.write_bytes((authority if is_own else stranger).issue_client_certificate(TOPICS))

    async def story() -> None:
        async with serve(authority, protocol, change=change) as url:
            system = System(
                Settings.load(
                    home=tmp_path / "home",
                    apns_production_url=url,
                    apns_development_url=url,
                    apns_ca_file=authority.ca_file,
                    connect_timeout=PATIENT.connect_timeout,
                    request_timeout=PATIENT.request_timeout,
                )
            )
            await _look(system, file)

    async def _look(system: System, file: Path) -> None:
        named = App.read_id(APP)
        app = system.apps.add(named.team_id, named.bundle_id, name="My App")
        system.apps.add_credential(app, read_certificate(file))
        system.registry.register(app, MAIL, "a1" * 32)
        response = await system.engine.send(
            app, Notification.read({"title": "Hello"}), Recipients.read(MAIL)
        )
        (delivery,) = response.deliveries
        assert (delivery.state, delivery.reason) == ("held", REFUSED)
        assert await asyncio.to_thread(_is_stopped, system, app)
        found = [one for one in await system.doctor.check_up(app) if one.check == "production"]
        assert [REFUSED in one.sentence for one in found] == [True]
        assert "add a new one" in found[0].fix
        story = system.why(app, MAIL)
        assert REFUSED in str(story)
        assert "add a new one" in " ".join(story.to_do)
        assert [one.status for one in system.registry.sessions(app)] == ["active"]
        await system.close()

    run(story)


def _is_stopped(system: System, app: App) -> bool:
    (held, *_) = system.app_control.obstacles(app)
    return held.kind == "stopped" and REFUSED in held.what


def test_beside_a_certificate_that_is_refused_a_key_is_used(
    authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    """The certificate is newer and refused: the push goes out by the key."""
    file = tmp_path / "push.pem"
    file.write_bytes(stranger.issue_client_certificate(TOPICS))

    def change(context: ssl.SSLContext) -> None:
        context.verify_mode = ssl.CERT_OPTIONAL

    async def story() -> None:
        async with serve(authority, counting(), change=change) as url:
            system = System(
                Settings.load(
                    home=tmp_path / "home",
                    apns_production_url=url,
                    apns_ca_file=authority.ca_file,
                    request_timeout=5,
                )
            )
            named = App.read_id(APP)
            app = system.apps.add(named.team_id, named.bundle_id, name="My App")
            system.apps.add_credential(app, make_key(app.apple.team_id))
            system.apps.add_credential(app, read_certificate(file))
            system.registry.register(app, MAIL, "a1" * 32)
            to = Recipients.read(MAIL)
            sent = await system.engine.send(app, Notification.read({"title": "Hello"}), to)
            async with asyncio.timeout(15):
                while [
                    one.state for one in system.ledger.deliveries_of(sent.notification_id or "")
                ] != ["sent"]:
                    system.engine.worker.wake()
                    await asyncio.sleep(0.05)
            assert not [one for one in system.app_control.obstacles(app) if one.kind == "stopped"]
            await system.close()

    run(story)


def _run(story: Callable[[], Awaitable[Any]], loop: str) -> None:
    async def told() -> None:
        await story()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(told())
