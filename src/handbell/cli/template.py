"""``handbell template``: notifications with variables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handbell._text import count
from handbell.creation.template import Template

from .api_key import ACTOR
from .context import apps_of, system
from .inputs import read_document, read_pairs
from .output import (
    AppOption,
    Json,
    ListedApp,
    local_time,
    say,
    write_json,
    write_lines,
    write_table,
)

if TYPE_CHECKING:
    from handbell.apps.templates import StoredTemplate
    from handbell.delivery.accept.preview import LanguagePreview

commands = typer.Typer(
    help="Notifications with variables and in several languages.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The template's name.")]


@commands.command()
def put(
    file: Annotated[
        Path, typer.Argument(help="The template as JSON, or as TOML in a file named .toml.")
    ],
    *,
    name: Annotated[
        str | None,
        typer.Option(help="Its name, if the file has none.", show_default="the file's"),
    ] = None,
    app: AppOption = None,
    as_json: Json = False,
) -> None:
    """Store a template, or replace the one of this name."""
    given = read_document(file)
    template = Template.read(given, name=name or (None if "name" in given else file.stem))
    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    stored, is_new = parts.templates.put(found, template)
    parts.audit.note(ACTOR, "template.put", template.name, app=found.id)
    if as_json:
        write_json(_described(stored))
        return
    say(f"{'Added' if is_new else 'Changed'} the template {template.name} of {found.id}.")
    say(f"Languages: {', '.join(template.languages)}")
    say(f"Variables: {', '.join(template.variables) or 'none'}")


@commands.command("list")
def list_templates(*, app: ListedApp = None, as_json: Json = False) -> None:
    """List templates."""
    parts = system()
    stored = [
        (item.id, kept) for item in apps_of(parts, app) for kept in parts.templates.list(item)
    ]
    if as_json:
        write_json([{"app": app_id, **_described(kept)} for app_id, kept in stored])
        return
    write_table(
        ["template", "languages", "variables", "changed", "app"],
        (
            [
                kept.template.name,
                ", ".join(kept.template.languages),
                ", ".join(kept.template.variables),
                local_time(kept.updated_at),
                app_id,
            ]
            for app_id, kept in stored
        ),
        "There is no template yet. Add one with: handbell template put FILE",
    )


@commands.command()
def show(name: Name, *, app: AppOption = None, as_json: Json = False) -> None:
    """Write a template in the form that `template put` reads; with --json its times as well."""
    parts = system()
    stored = parts.templates.get(parts.apps.find(app or parts.settings.app), name)
    write_json(_described(stored) if as_json else stored.template.to_dict())


@commands.command()
def preview(
    name: Name,
    *,
    variable: Annotated[
        list[str] | None,
        typer.Option("--variable", help="NAME=VALUE, or a JSON object; may be repeated."),
    ] = None,
    app: AppOption = None,
    as_json: Json = False,
) -> None:
    """Render a template in each language, with its size in bytes; nothing is sent."""
    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    previews = parts.previewer.template(found, name, read_pairs("--variable", variable))
    if as_json:
        write_json(previews)
    else:
        write_languages(previews)
    if any(item.problem for item in previews):
        raise typer.Exit(1)


@commands.command()
def remove(name: Name, *, app: AppOption = None) -> None:
    """Remove a template; notifications that were accepted before are still sent."""
    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    parts.templates.remove(found, name)
    parts.audit.note(ACTOR, "template.remove", name, app=found.id)
    say(f"Removed the template {name} of {found.id}.")


def write_languages(previews: "list[LanguagePreview]") -> None:
    """Write the preview of each language."""
    for item in previews:
        size = f"{item.size:,} of {count(item.limit, 'byte')}" if item.limit else "cannot be sent"
        say(f"{item.language or 'own text'}: {size}")
        if item.payload:
            say(f"  {item.payload}")
        write_lines(item.cuts, "  warning: ", "yellow")
        write_lines([item.problem] if item.problem else [], "  error: ", "red")


def _described(stored: "StoredTemplate") -> dict[str, object]:
    return {
        **stored.template.to_dict(),
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
    }
