"""``handbell db``: the database and its schema."""

from contextlib import closing

import typer

from . import context
from .output import Json, say, write_json

commands = typer.Typer(help="The database and its schema.", no_args_is_help=True)


@commands.callback()
def _commands() -> None:
    # Without it, Typer would make one command of a group of one.
    pass


@commands.command()
def upgrade(*, as_json: Json = False) -> None:
    """Bring the schema up to date; it may be repeated.

    An SQLite file is brought up to date whenever it is opened. A database server is shared, so it
    is left to this command. There is no way back: an SQLite file is copied before it is changed,
    beside it; back up a server's database first.
    """
    from handbell.storage.database import Database  # noqa: PLC0415 - heavy

    with closing(Database.open(context.settings().database_url, migrate=True)) as database:
        revision = database.revision()
        if as_json:
            write_json({"database": database.name, "revision": revision})
        else:
            say(f"The schema of {database.name} is up to date, at {revision}.")
