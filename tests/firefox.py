"""A stock Firefox that a twin's push service reaches, driven by Marionette."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import pytest

FIREFOX: Final = shutil.which("firefox-esr") or shutil.which("firefox")
IN_FIREFOX: Final = (
    pytest.mark.judge("Firefox"),
    pytest.mark.skipif(
        FIREFOX is None, reason="firefox is missing: install Debian's package 'firefox-esr'"
    ),
)
"""The marks of a test that needs it."""
PATIENCE: Final = 30.0

_PREFERENCES: Final[Mapping[str, Any]] = {
    "dom.push.connection.enabled": True,
    "dom.push.testing.allowInsecureServerURL": True,
    "dom.push.retryBaseInterval": 200,
    "dom.push.maxQuotaPerSubscription": 100_000,
    "permissions.default.desktop-notification": 1,
    # The desktop's own notifications need a desktop; those of Firefox are windows.
    "alerts.useSystemBackend": False,
    "marionette.port": 0,
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}
_TABS: Final = """
return [...Services.wm.getEnumerator("navigator:browser")]
  .flatMap((one) => one.gBrowser.tabs).map((tab) => tab.linkedBrowser.currentURI.spec);
"""
# A window is there before its content.
_ALERTS: Final = """
const title = (one) => one.document.getElementById("alertTitleLabel")?.value;
const alerts = [...Services.wm.getEnumerator("alert:alert")].filter(title);
"""
_TITLES: Final = "return alerts.map(title);"
_CLICK: Final = """
const found = alerts.find((one) => title(one) === arguments[0]);
found?.document.getElementById("alertBox").click();
return Boolean(found);
"""


class Firefox:
    """One Firefox. ``profile`` outlives it, so that it can be started again."""

    def __init__(self, profile: Path, push_service: str) -> None:
        self._profile = profile
        self._push_service = push_service
        self._process: subprocess.Popen[bytes] | None = None
        self._marionette: _Marionette | None = None

    def __enter__(self) -> Self:
        self._profile.mkdir(exist_ok=True)
        preferences = {"dom.push.serverURL": self._push_service, **_PREFERENCES}
        lines = (
            f"user_pref({json.dumps(name)}, {json.dumps(value)});"
            for name, value in preferences.items()
        )
        (self._profile / "user.js").write_text("\n".join(lines), encoding="utf-8")
        port_file = self._profile / "MarionetteActivePort"
        port_file.unlink(missing_ok=True)
        with (self._profile / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    str(FIREFOX),
                    *("--headless", "--no-remote", "--marionette", "--remote-allow-system-access"),
                    *("--profile", str(self._profile), "about:blank"),
                ],
                env={**os.environ, "HOME": str(self._profile)},
                stdout=output,
                stderr=output,
            )
        wait_for(lambda: port_file.exists() and bool(port_file.read_text().strip()))
        self._marionette = _Marionette(int(port_file.read_text()))
        return self

    def __exit__(self, *_error: object) -> None:
        if self._marionette is not None:
            self._marionette.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def go_to(self, address: str) -> None:
        """Load a page."""
        self._tell("WebDriver:Navigate", url=address)

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script in the page returns, or what its promise becomes."""
        return self._script("content", script, *arguments)

    def click(self, selector: str) -> None:
        """Click on an element, as a user does."""
        found = self._tell("WebDriver:FindElement", using="css selector", value=selector)
        (reference,) = found["value"].values()
        self._tell("WebDriver:ElementClick", id=reference)

    @property
    def addresses(self) -> list[str]:
        """Return the addresses of all tabs."""
        found: list[str] = self._script("chrome", _TABS)
        return found

    @property
    def notifications(self) -> list[str]:
        """Return the titles of the notifications that are on the screen."""
        titles: list[str] = self._script("chrome", _ALERTS + _TITLES)
        return titles

    def click_notification(self, title: str) -> None:
        """Click on a notification that is on the screen."""
        assert self._script("chrome", _ALERTS + _CLICK, title)

    def _script(self, context: str, script: str, *arguments: Any) -> Any:
        self._tell("Marionette:SetContext", value=context)
        said = self._tell("WebDriver:ExecuteScript", script=script, args=list(arguments))
        self._tell("Marionette:SetContext", value="content")
        return said["value"]

    def _tell(self, command: str, **parameters: Any) -> Any:
        assert self._marionette is not None
        return self._marionette.tell(command, parameters)


class _Marionette:
    """Firefox's remote protocol: frames of ``length:[0, id, command, parameters]``."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self._read()
        self.tell("WebDriver:NewSession", {})

    def tell(self, command: str, parameters: Mapping[str, Any]) -> Any:
        """Return the answer to a command."""
        self._number += 1
        frame = json.dumps([0, self._number, command, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(frame), frame))
        _, _, error, result = self._read()
        assert error is None, f"{command}: {error}"
        return result

    def close(self) -> None:
        """Have Firefox quit, and close the connection."""
        with contextlib.suppress(OSError, AssertionError, ValueError):
            self.tell("Marionette:Quit", {"flags": ["eAttemptQuit"]})
        self._file.close()
        self._socket.close()

    def _read(self) -> Any:
        size = b""
        while (character := self._file.read(1)) != b":":
            assert character, "Firefox has gone"
            size += character
        return json.loads(self._file.read(int(size)))


def wait_for(condition: Any, patience: float = PATIENCE) -> Any:
    """Return what a condition becomes once it is true; an AssertionError after ``patience``."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"It did not happen within {patience} seconds")


@contextlib.contextmanager
def firefox(profile: Path, push_service: str) -> Iterator[Firefox]:
    """Run a Firefox whose push service is a twin's while the block runs."""
    with Firefox(profile, push_service) as running:
        yield running
