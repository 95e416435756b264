"""``handbell db``: the database and its schema."""

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from handbell._text import count

from . import context, db_copy
from .output import Json, say, write_json

if TYPE_CHECKING:
    from handbell.apps.reseal import Resealed

commands = typer.Typer(help="The database and its schema.", no_args_is_help=True)
commands.command("copy")(db_copy.copy)
commands.command("reopen")(db_copy.reopen)


@commands.command()
def upgrade(*, as_json: Json = False) -> None:
    """Upgrade the schema; it may be repeated.

    An SQLite file is upgraded whenever it is opened. A database server is shared, so it is upgraded
    by this command only, on one machine or several at once. There is no downgrade: an SQLite file
    is copied before the upgrade, next to it; back up a server's database first.

    A step that would break servers of the former version waits until none of them runs: upgrade the
    servers it names, then run this again.
    """
    from handbell.storage.database import Database  # noqa: PLC0415 - heavy

    with closing(Database.open(context.settings().database_url, migrate=True)) as database:
        revision, waiting = database.revision(), database.waiting()
    if as_json:
        told = None if waiting is None else waiting._asdict()
        write_json({"database": database.name, "revision": revision, "waiting": told})
    elif waiting is None:
        say(f"The schema of {database.name} is up to date, at {revision}.")
    else:
        say(f"The schema of {database.name} is at {revision}; {waiting}.")
        say("Servers of this version work with it. Upgrade the others, then run this again.")


@commands.command()
def reseal(*, as_json: Json = False) -> None:
    """Make the first of this machine's secret keys the installation's, and seal all with it.

    Every running server and worker must have that key beside the present one; they follow within
    seconds. When it has ended, the other keys can be removed everywhere. It may be interrupted and
    run again. docs/settings.md has the steps.
    """
    parts = context.system()
    with closing(parts.database):
        done, name = parts.resealer.run(), parts.database.name
    if as_json:
        write_json({"database": name, **asdict(done)})
    else:
        _tell_resealed(done, name)
    if done.lost:
        raise typer.Exit(1)


def _tell_resealed(done: "Resealed", name: str) -> None:
    say(
        f"{count(done.resealed, 'secret')} of {name} sealed again; the key {done.key} seals and "
        f"opens {done.opened:,}."
    )
    for place, number in done.lost.items():
        say(f"No key of this machine opens {count(number, 'secret')} of {place}.", err=True)
    if done.lost:
        say("Run this again on a machine with the key that does, or add these again.", err=True)
    elif done.others:
        say(f"If {done.key} is the new key, remove the others now: {', '.join(done.others)}.")
    else:
        say("This machine has no other key: to change it, put a new one in front of it first.")


@commands.command()
def restored(*, as_json: Json = False) -> None:
    """Say that the database was restored from a backup, before servers and workers start.

    What was due by now may have been sent since the backup was made, and is sent again: under the
    ids it had, so that devices that got it show it once, as far as their push services can do that.
    What is due later goes out as ever. docs/operations.md has the steps.
    """
    from handbell.delivery.queue.restored import mark_restored  # noqa: PLC0415 - heavy

    parts = context.system()
    with closing(parts.database):
        found, name = mark_restored(parts.database, now=parts.now()), parts.database.name
    if as_json:
        write_json({"database": name, **asdict(found)})
    else:
        due = count(found.deliveries, "delivery", "deliveries")
        say(f"Of {name}, {due} and {count(found.shards, 'part')} of broadcasts were due:")
        say("They may have been sent since the backup, and are sent as repeats.")


@commands.command("accept-key")
def accept_key(
    *,
    is_sure: Annotated[
        bool, typer.Option("--yes", help="Do not ask whether the former key is lost for good.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make this machine's secret key the installation's, when the former one is lost for good.

    Secrets sealed with the lost key stay unreadable: add the apps' credentials, the webhooks
    and the identity keys again. Every other machine needs this key from then on.
    """
    if not is_sure and not as_json:
        typer.confirm("Secrets sealed with the former key are lost then. Continue?", abort=True)
    parts = context.system()
    with closing(parts.database):
        parts.installation_key.accept()
        found = {"key": parts.vault.origin, "database": parts.database.name}
    if as_json:
        write_json(found)
    else:
        say(f"The secret key of {found['database']} is now the one from {found['key']}.")
