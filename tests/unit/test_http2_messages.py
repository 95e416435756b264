"""What a person reads where no connection came about: words, and no object of Python's."""

import errno
import socket
import ssl

import pytest

from handbell.gateways.http2_values import connect_error_text, in_words


def unverified() -> ssl.SSLError:
    """Return what ssl raises for a certificate that nobody vouches for."""
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] no (_ssl.c:1006)")
    error.verify_message = "self-signed certificate"
    return error


MANY = "Multiple exceptions: [Errno 111] Connect call failed ('127.0.0.1', 1), [Errno 101] no"
ERRORS = {
    "no error number": (ConnectionError("the peer said no"), "the peer said no"),
    "nothing at all": (ConnectionError(), "ConnectionError"),
    "asyncio's own text": (
        OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 46565)"),
        "Connection refused",
    ),
    "several addresses": (OSError(MANY), "Connection refused, Network is unreachable"),
    "several alike": (OSError(errno.ECONNREFUSED, MANY), "Connection refused"),
    "a name": (socket.gaierror(socket.EAI_NONAME, "Name not known"), "Name not known"),
    "a certificate": (unverified(), "its certificate cannot be verified: self-signed certificate"),
    "one text": (ssl.SSLError("no h2 here"), "no h2 here"),
    "an end too early": (ssl.SSLEOFError(8, "EOF occurred (_ssl.c:1006)"), "EOF occurred"),
    "a label": (UnicodeError("label too long"), "label too long"),
    "not a text": (RuntimeError(("a", 1)), "RuntimeError"),
}


@pytest.mark.parametrize(("error", "words"), ERRORS.values(), ids=ERRORS)
def test_an_error_of_the_network_is_told_in_words(error: Exception, words: str) -> None:
    """The system's words stand for it, never a tuple, a number or a place in somebody's source."""
    assert in_words(error) == words
    assert connect_error_text(error).detail == words


def test_a_time_that_is_over_is_told_as_such() -> None:
    """A TimeoutError has no words of its own."""
    assert connect_error_text(TimeoutError()).detail == "No connection was made in time"
