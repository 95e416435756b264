"""Parse untrusted certificates in a separate process with resource limits.

A file can demand billions of key-derivation rounds, all memory, or contain numbers that take hours
to validate. The library complies, and blocks its process meanwhile.
"""

import asyncio
import contextlib
import json
import math
import sys
import time
from base64 import b64decode, b64encode
from typing import Final

from handbell.errors import CredentialError
from handbell.services.apns.credential import Certificate, pack, read_certificate, unpack

SECONDS: Final = 10.0
"""The time-out of the process, its start included."""

_CPU_SECONDS: Final = 2
_MEMORY_BYTES: Final = 1024**3


async def read_certificate_apart(content: bytes, *, password: str | None = None) -> Certificate:
    """Parse a file's contents with :func:`~handbell.services.apns.credential.read_certificate`.

    Raises :class:`~handbell.errors.CredentialError`, also when the limits are exceeded.
    """
    asked = json.dumps({"content": b64encode(content).decode(), "password": password})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", __name__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output = b""
    try:
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate(asked.encode())
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not output:
        raise CredentialError(
            "The given text takes far more work to read than a certificate of Apple's",
            fix="Export certificate and key together from Keychain Access as .p12",
        )
    result = json.loads(output)
    if "what" in result:
        raise CredentialError(result["what"], fix=result["fix"])
    found = unpack(b64decode(result["packed"]))
    assert isinstance(found, Certificate)  # noqa: S101 - the other process read nothing else
    return found


def _limit() -> None:
    """Set resource limits for this process, where the system supports them."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415 - not on every system

        seconds = math.ceil(time.process_time()) + _CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def main() -> None:
    """Parse a certificate from standard input and write it to standard output."""
    asked = json.load(sys.stdin)
    _limit()
    try:
        found = read_certificate(b64decode(asked["content"]), password=asked["password"])
        result = {"packed": b64encode(pack(found)).decode()}
    except CredentialError as error:
        result = {"what": error.what, "fix": error.fix}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
