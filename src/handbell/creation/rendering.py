"""Rendering of the expressions in a template's texts.

Jinja's immutable sandbox, restricted to values, comparisons, ``{% if %}`` and a few filters.
Loops, calls, assignments and attributes other than members of the given values are not available,
so that a template's author can neither reach into the process nor keep it busy. Needs the extra
``server``.
"""

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from jinja2 import StrictUndefined, TemplateError, UndefinedError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.environment import Template
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .expressions import BINARY, TESTS, UNARY, allowance, compare, concatenate, plain_text
from .filters import FILTERS

MAX_TEXT: Final = 8_192
"""The maximum length of one text of a template, in characters."""
MAX_NODES: Final = 500
"""The maximum number of parts (texts, values, filters …) of one text of a template."""
MAX_OUTPUT: Final = 65_536
"""The maximum length of one rendered text: many times what a payload holds."""

_ALLOWED: Final = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.List,
    nodes.Tuple,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Filter,
    nodes.Test,
    nodes.Keyword,
    nodes.If,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Add,
    nodes.Sub,
    nodes.Neg,
    nodes.Concat,
)
_NOUNS: Final[Mapping[type[nodes.Node], str]] = {
    nodes.For: "a loop",
    nodes.Call: "a call",
    nodes.CallBlock: "a call",
    nodes.Assign: "an assignment",
    nodes.AssignBlock: "an assignment",
    nodes.Macro: "a macro",
    nodes.Slice: "a slice",
    nodes.Dict: "a mapping",
}
_RESERVED: Final = frozenset({"self", "true", "false", "none", "True", "False", "None"})
# Bidirectional overrides, which reverse everything after them: a name must not rearrange a text.
_DIRECTIONS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class TextRefusedError(Exception):
    """A template text is invalid or did not render; ``missing`` names missing variables.

    Internal: the caller turns it into a TemplateError.
    """

    def __init__(self, message: str, *, missing: str | None = None) -> None:
        super().__init__(message)
        self.missing = missing


class _Missing(StrictUndefined):
    """A missing value: any use of it raises an error with its name."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        return self._undefined_hint or str(self._undefined_name)


class _Generator(CodeGenerator):
    """Compiles comparisons and ``~`` to our functions: Python's accept anything."""

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802 - Jinja's
        self.write("environment.compare(")
        self.visit(node.expr, frame)
        for operand in node.ops:
            self.write(f", {operand.op!r}, ")
            self.visit(operand.expr, frame)
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja's
        self.write("environment.concatenate(")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")")


class _Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which expressions see the given values and their members only."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(BINARY)
    intercepted_unops = frozenset(UNARY)
    compare = staticmethod(compare)
    concatenate = staticmethod(concatenate)

    def call_binop(self, _: Context, operator: str, left: Any, right: Any) -> Any:
        """Return the result of a binary operator. Raises TypeError for unintended types."""
        return BINARY[operator](left, right)

    def call_unop(self, _: Context, operator: str, arg: Any) -> Any:
        """Return the result of a unary operator. Raises TypeError for unintended types."""
        return UNARY[operator](arg)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return a member of a mapping; nothing else has attributes."""
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return a member of a mapping or an item of a list."""
        if isinstance(obj, Mapping) and isinstance(argument, str) and argument in obj:
            return obj[argument]
        is_place = isinstance(argument, int) and not isinstance(argument, bool)
        if isinstance(obj, list | tuple) and is_place and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(obj=obj, name=argument)


class CompiledText(NamedTuple):
    """A compiled text, and the names of its variables."""

    template: Template
    names: frozenset[str]

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the text with the values filled in. Raises TextRefusedError."""
        try:
            with allowance():
                return "".join(_bounded(self.template.generate(variables)))
        except UndefinedError as error:
            raise TextRefusedError("a value is missing", missing=error.message) from None
        except TextRefusedError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an expression does is its own error
            raise TextRefusedError(_words(error)) from None


@lru_cache(maxsize=4096)
def compiled(text: str, *, is_url: bool = False) -> CompiledText:
    """Compile a text. With ``is_url`` values are percent-encoded.

    A URL that is a single expression is not encoded. Raises TextRefusedError.
    """
    if len(text) > MAX_TEXT:
        raise TextRefusedError(f"it has {len(text):,} characters, more than {MAX_TEXT:,}")
    try:
        tree = _TEXTS.parse(text)
        _check(tree)
        names = frozenset(each.name for each in tree.find_all(nodes.Name))
        environment = _URLS if is_url and not _is_one_expression(tree) else _TEXTS
        template = environment.from_string(text)
    except TextRefusedError:
        raise
    except (TemplateError, RecursionError, SyntaxError, MemoryError, ValueError) as error:
        raise TextRefusedError(_words(error)) from None
    return CompiledText(template, names)


def check_name(name: str) -> None:
    """Raise TextRefusedError for an invalid variable name."""
    if not name.isidentifier() or name.startswith("_") or name in _RESERVED:
        raise TextRefusedError(f"{name[:80]!r} cannot be the name of a variable")


def _check(tree: nodes.Template) -> None:
    for number, node in enumerate(tree.find_all(nodes.Node)):
        if number > MAX_NODES:
            raise TextRefusedError(f"it has more than {MAX_NODES} parts")
        if not isinstance(node, _ALLOWED):
            noun = _NOUNS.get(type(node), f"`{type(node).__name__.lower()}`")
            raise TextRefusedError(f"it has {noun}, which a template cannot use")
        if isinstance(node, nodes.Name):
            check_name(node.name)
        if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
            raise TextRefusedError(f"it asks for {node.attr[:80]!r}, which no value has")
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            raise TextRefusedError(
                f"there is no filter {node.name[:80]!r}; known: {', '.join(FILTERS)}"
            )
        if isinstance(node, nodes.Test) and node.name not in TESTS:
            raise TextRefusedError(
                f"there is no test {node.name[:80]!r}; known: {', '.join(TESTS)}"
            )
        if isinstance(node, nodes.Test) and (node.args or node.kwargs):
            raise TextRefusedError(f"the test {node.name!r} takes no arguments")


def _is_one_expression(tree: nodes.Template) -> bool:
    match tree.body:
        case [nodes.Output(nodes=[single])]:
            return not isinstance(single, nodes.TemplateData)
    return False


def _bounded(parts: Iterator[str]) -> Iterator[str]:
    length = 0
    for part in parts:
        length += len(part)
        if length > MAX_OUTPUT:
            raise TextRefusedError(f"it renders to more than {MAX_OUTPUT:,} characters")
        yield part


def _words(error: BaseException) -> str:
    if isinstance(error, RecursionError | MemoryError):
        return "it is nested too deep"
    message = str(error).strip() or type(error).__name__
    return message.splitlines()[0][:200]


def _in_text(value: Any) -> str:
    """Return a value as text, without invisible control characters."""
    text = plain_text(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter for letter in text if letter == "\n" or _is_shown(letter))


def _in_url(value: Any) -> str:
    """Return a value as one percent-encoded component of a URL."""
    return quote("".join(filter(_is_shown, plain_text(value))), safe="")


def _is_shown(letter: str) -> bool:
    return unicodedata.category(letter) != "Cc" and letter not in _DIRECTIONS


def _environment(finalize: Callable[[Any], str]) -> _Sandbox:
    sandbox = _Sandbox(
        undefined=_Missing,
        finalize=finalize,
        autoescape=False,  # a push has no markup; see decision 12
        keep_trailing_newline=True,
        cache_size=0,
        optimized=False,  # constant folding takes time cubic in the number of parts
    )
    sandbox.globals.clear()
    sandbox.filters = dict(FILTERS)
    sandbox.tests = dict(TESTS)
    return sandbox


_TEXTS: Final = _environment(_in_text)
_URLS: Final = _environment(_in_url)
