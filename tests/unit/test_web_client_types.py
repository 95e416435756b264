"""The types of clients/web say what its module has."""

import re
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "clients" / "web"


def test_every_public_member_has_a_type() -> None:
    """Neither is there a member without a type, nor a type without a member."""
    code = (CLIENT / "handbell.js").read_text(encoding="utf-8").partition("export class Handbell")
    types = (
        (CLIENT / "handbell.d.ts").read_text(encoding="utf-8").partition("export class Handbell {")
    )
    members = set(re.findall(r"^  (?:get |async )?([a-z]\w*)\(", code[2], re.MULTILINE))
    typed = set(re.findall(r"^  (?:readonly )?([a-z]\w*)[(:]", types[2], re.MULTILINE))
    assert members == typed
    assert {"enable", "refresh", "signIn", "signOut"} < members


def test_every_code_of_the_client_is_in_its_types() -> None:
    """What the client throws by itself is listed, and nothing else is."""
    source = "".join(
        (CLIENT / name).read_text(encoding="utf-8")
        for name in ("handbell.js", "handbell-shared.js")
    )
    thrown = set(re.findall(r'HandbellError\(\s*"([a-z-]+)"', source))
    thrown |= set(re.findall(r'HandbellError\(\s*.*\? "(\w+)" : "(\w+)"', source)[0])
    types = (CLIENT / "handbell.d.ts").read_text(encoding="utf-8")
    listed = types.partition("export type ErrorCode =")[2].partition(";")[0]
    assert thrown == set(re.findall(r'"([a-z-]+)"', listed))
