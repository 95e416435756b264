"""Environment variables of HTTP clients: proxies and certificates.

httpx reads them when a client is created, and its errors name neither variable nor fault. Here
each is validated before, and an error names the variable. Values are not repeated, as they may
contain a password.
"""

import os
import ssl
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from .errors import SettingsError

_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def check_variables(environment: Mapping[str, str] = os.environ) -> None:
    """Raise SettingsError for an invalid variable of proxies or certificates."""
    for name in (*_PROXIES, *_CERTIFICATES):
        given, value = _in_force(name, environment)
        if value.strip():
            _check(given, value, _READERS.get(name, _proxy))


def wrong_exceptions(environment: Mapping[str, str] = os.environ) -> SettingsError:
    """Return the error for a client that fails although all variables looked valid."""
    given, _ = _in_force("no_proxy", environment)
    return SettingsError(
        f"The variable {given} cannot be used: it is no list of hosts",
        fix=f"Correct {given}, or unset it: names and addresses, separated by commas",
    )


def proxy_variable(url: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of the variable whose proxy serves a URL, empty if none does."""
    for name in (f"{urlsplit(url).scheme}_proxy", "all_proxy"):
        given, value = _in_force(name, environment)
        if value.strip():
            return given
    return ""


def certificate_variable(environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of the variable that sets the trusted certificates, or nothing."""
    return next((name for name in _CERTIFICATES if environment.get(name)), "")


def _in_force(name: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the variable's actual name, and its value: lower case wins, as elsewhere."""
    for given in (name, name.upper()):
        if given in environment:
            return given, environment[given]
    return name.upper(), ""


def _check(name: str, value: str, read: Callable[[str], None]) -> None:
    try:
        read(value)
    except ssl.SSLError:
        why = "the file holds no certificates in PEM"
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
    except ValueError as error:
        why = str(error)
    else:
        return
    raise SettingsError(
        f"The variable {name} cannot be used: {why}", fix=f"Correct {name}, or unset it"
    )


def _proxy(value: str) -> None:
    try:
        parts = urlsplit(value.strip() if "://" in value else f"http://{value.strip()}")
        # Accessing the port raises for an invalid one.
        is_good = parts.port != 0 and bool(parts.hostname) and parts.netloc.isprintable()
    except ValueError:
        is_good, parts = False, urlsplit("")
    if not is_good or " " in parts.netloc or parts.scheme not in _SCHEMES:
        raise ValueError("it must look like http://proxy.example.com:3128")
    if parts.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ValueError("a SOCKS proxy needs the package socksio, which is not installed")


def _certificates(value: str) -> None:
    ssl.create_default_context(cafile=value)


def _folder(value: str) -> None:
    if not Path(value).is_dir():
        raise ValueError("there is no such folder")


_READERS: Final = {"SSL_CERT_FILE": _certificates, "SSL_CERT_DIR": _folder}
