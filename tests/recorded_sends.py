"""Sends of every form, good and bad, with the answers and the rows that they came to once.

The sends were made at random, and what came of them was recorded while there were two ways in, a
quick one and a full one, which agreed on all of it. ``python -m tests.recorded_sends`` records the
table anew; look at the difference line by line.
"""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
from sqlalchemy import text

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.template import Template
from handbell.server.application import create_application
from handbell.server.asgi_server import make_context
from handbell.settings import Settings
from handbell.system import System

TABLE: Final = Path(__file__).with_name("recorded_sends.jsonl")
NOON: Final = 1_790_000_000.0
TEMPLATES: Final = {
    "order": {"title": "Order {{ order }}", "body": "Hello {{ name }}"},
    "plain": {"title": "Plain"},
    "badge": {
        "title": "T {{ order }}",
        "badge": "{{ order }}",
        "languages": {"fr": {"title": "F {{ name }}"}},
    },
}
_ROW: Final = "SELECT * FROM notifications WHERE public_id = :id"
_DELIVERIES: Final = "SELECT * FROM deliveries WHERE notification_id = :row ORDER BY number"
_SHARDS: Final = "SELECT * FROM shards WHERE notification_id = :row ORDER BY position"
# Without what is random, and what later versions keep beside.
_KEPT: Final = (
    "created_at",
    "urgency",
    "send_at",
    "is_development",
    "is_loud",
    "number",
    "gateway",
    "address",
    "environment",
    "state",
    "reason",
    "due_at",
)


class Send(NamedTuple):
    """One recorded call: its body and the idempotency key of its header, and what came of it.

    ``stored`` is None for what was refused, and ``former`` for what repeats another send. Ids are
    the places of the sends that they were given to.
    """

    body: str
    key: str | None
    status: int = 0
    answer: dict[str, Any] | None = None
    stored: Any = None

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        return self.body.encode("utf-8", "surrogatepass")

    @property
    def came(self) -> dict[str, Any]:
        """What came of it."""
        return {"status": self.status, "answer": self.answer, "stored": self.stored}


def read_table() -> list[Send]:
    """Return the whole table."""
    return [Send(**json.loads(line)) for line in TABLE.read_text("utf-8").splitlines()]


class Office:
    """A system at noon with people of every kind, and its HTTP API; nothing sends."""

    def __init__(self, folder: Path) -> None:
        self.system = System(Settings.load(home=folder), now=lambda: NOON)
        self.app = self.system.apps.add("TEAM123456", "com.sample.myapp", name="My App")
        self.system.apps.add_credential(self.app, make_key(self.app.apple.team_id))
        for name, notification in TEMPLATES.items():
            template = Template.read({"notification": notification}, name=name)
            self.system.templates.put(self.app, template)
        _register_people(self.system, self.app)
        _, key = self.system.api_keys.add("recorded", ["send"], self.app)
        context = make_context(
            self.system, public_url="http://127.0.0.1", has_worker=False, has_console=False
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=create_application(context)),
            base_url=f"http://127.0.0.1/v1/apps/{self.app.id}",
            headers={"Authorization": f"Bearer {key}"},
        )

    async def call(self, send: Send) -> tuple[int, Any]:
        """Make one single call and return the answer's status and body."""
        headers = {"Content-Type": "application/json"}
        if send.key is not None:
            headers["Idempotency-Key"] = send.key
        answer = await self.client.post("/notifications", content=send.content, headers=headers)
        return answer.status_code, answer.json()

    def came(self, answers: Sequence[tuple[int, Any]]) -> list[dict[str, Any]]:
        """Return what came of calls as the table has it."""
        places: dict[str, int] = {}
        found = []
        for place, (status, answer) in enumerate(answers):
            name = answer.get("id")
            if name is None:
                words = {part: answer.get(part) for part in ("code", "detail", "fix")}
                found.append({"status": status, "answer": words, "stored": None})
                continue
            first = places.setdefault(name, place)
            stored = self._stored(name) if first == place else "former"
            told = {"id": first, "warnings": answer.get("warnings", [])}
            found.append({"status": status, "answer": told, "stored": stored})
        return found

    def _stored(self, public_id: str) -> dict[str, Any]:
        with self.system.database.read() as connection:
            row = dict(connection.execute(text(_ROW), {"id": public_id}).mappings().one())
            asked = {"row": row["id"]}
            deliveries = connection.execute(text(_DELIVERIES), asked).mappings().all()
            shards = connection.execute(text(_SHARDS), asked).all()
        content, recipients = map(json.loads, (row["content"], row["recipients"]))
        return {
            "row": {**_kept(row), "content": content, "recipients": recipients},
            "deliveries": [_kept(dict(one)) for one in deliveries],
            "shards": len(shards),
        }


def _register_people(system: System, app: App) -> None:
    """Register somebody for each status that a session may have."""
    registry = system.registry
    registry.register(app, "one@example.com", "01" * 32)
    registry.register(app, "two@example.com", "02" * 32)
    registry.register(app, "two@example.com", "03" * 32)
    registry.register(app, "two@example.com", "04" * 32, status="pending")
    registry.register(app, "pending@example.com", "05" * 32, status="pending")
    closed = registry.register(app, "closed@example.com", "06" * 32)
    registry.close(closed, "Unregistered")
    registry.register(app, "development@example.com", "07" * 32, environment="development")
    quarantined = registry.register(app, "quarantined@example.com", "08" * 32)
    registry.quarantine(quarantined, reason="BadDeviceToken")
    registry.register(app, "twin@example.com", "09" * 32, environment="twin")


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _KEPT if row.get(name) is not None}


async def _record(sends: Sequence[Send], folder: Path) -> list[dict[str, Any]]:
    office = Office(folder)
    async with office.client:
        found = office.came([await office.call(send) for send in sends])
    office.system.database.close()
    return found


def _write(sends: Sequence[Send]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_record(sends, Path(folder)))
    lines = [
        json.dumps({"body": send.body, "key": send.key, **came})
        for send, came in zip(sends, found, strict=True)
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write(read_table())
