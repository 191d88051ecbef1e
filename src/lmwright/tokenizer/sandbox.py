"""Jinja's sandbox with bounds: nothing that a chat template does can take much time or memory.

Jinja keeps a template from Python's objects, not from eating time and memory. Here each block of a
template, call, filter, operator and output is counted by a `StepMeter` before it is done, and what
makes much of little (a width, a repetition, a power) is held against a bound. Only methods and
functions that are listed can be called: whatever Python adds stays outside.
"""

import json
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from types import BuiltinMethodType, MethodType
from typing import Any, NoReturn, cast

from jinja2 import Environment, TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Cycler, Namespace

from lmwright.tokenizer.guards import (
    FILTER_GUARDS,
    METHOD_GUARDS,
    bound_percent,
    check_width,
    check_widths,
)
from lmwright.tokenizer.meter import MAX_CHARACTERS, StepMeter

MAX_INT = 2**4096
# An element of a list takes 8 bytes at least, and as much again where the list is gone through.
ELEMENT_CHARACTERS = 32
# Some filters take a time that grows faster than the text.
SLOW = (
    *("pprint", "striptags", "title", "urlencode", "urlize", "wordcount", "wordwrap", "xmlattr"),
)
MAX_SLOW_CHARACTERS = 10_000
# Filters and tests that do not look into the lists that they are given.
SHALLOW = {
    *("length", "count", "first", "last", "list", "default", "d", "items", "map", "select"),
    *("reject", "selectattr", "rejectattr", "reverse", "attr", "batch", "slice", "random"),
}
COMPARING = {
    *("eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<=", "gt", ">"),
    *("greaterthan", "ge", ">=", "in", "upper", "lower"),
}
METHODS: dict[type, set[str]] = {
    str: {
        *("capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "index"),
        *("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower"),
        *("isnumeric", "isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower"),
        *("lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex"),
        *("rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip"),
        *("swapcase", "title", "upper", "zfill"),
    },
    dict: {"copy", "get", "items", "keys", "values"},
    list: {"copy", "count", "index"},
    tuple: {"count", "index"},
    LoopContext: {"changed", "cycle"},
    Cycler: {"next", "reset"},
}


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of Hugging Face's templates, with everything counted."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        extensions = [loopcontrols, _GenerationTag]
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=self.whole
        )
        self.code_generator_class = _Counting
        self._meter: ContextVar[StepMeter] = ContextVar("meter")
        self.globals.pop("lipsum")
        self.globals.update(
            namespace=_Namespace,
            raise_exception=_raise_exception,
            strftime_now=_strftime_now,
        )
        self.filters["tojson"] = _to_json
        self.filters = {name: self._counted(name, f) for name, f in self.filters.items()}
        self.tests |= {name: self._counted(name, self.tests[name]) for name in COMPARING}

    @contextmanager
    def metered(self) -> Iterator[None]:
        """Give what is compiled or rendered in the block a new meter."""
        token = self._meter.set(StepMeter())
        try:
            yield
        finally:
            self._meter.reset(token)

    @property
    def meter(self) -> StepMeter:
        """What is left for the rendering under way."""
        return self._meter.get()

    # Called by the code that `_Counting` writes.

    def step(self, n_characters: int) -> None:
        """Count a block that begins, with so many characters of text in it."""
        self._meter.get().text(n_characters)

    def whole(self, value: Any) -> Any:
        """Count a value that is about to be read to its end."""
        return self._meter.get().whole(value)

    def size(self, value: Any) -> Any:
        """Count a value that is about to be gone through."""
        return self._meter.get().size(value)

    def concatenated(self, parts: tuple[Any, ...]) -> str:
        """Return `a ~ b`."""
        return self.size(str_join(self.whole(part) for part in parts))

    # Called by Jinja.

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operator whose result is of a bearable size."""
        if operator == "**" and not (abs(left) <= 2**16 and abs(right) <= 16):
            raise OverflowError("a power of more than 2**16 ** 16")
        for value, n_times in ((left, right), (right, left)):
            if operator == "*" and isinstance(value, Sized):
                self.meter.text(_weight(value) * max(0, n_times))
        if operator == "%" and isinstance(left, str):
            bound_percent(self.meter, left, right)
        if operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
            self.meter.text(_weight(left) + _weight(right))
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and abs(result) > MAX_INT:
            raise OverflowError("a whole number of more than 4,096 bits")
        self.meter.step()
        return result

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what may be called, and count it."""
        owner, meter = self._owner(function), self.meter
        # Functions hand on what they get; methods of texts and lists read and compare it.
        count = meter.size if owner is None or isinstance(owner, dict) else meter.whole
        for value in (owner, *args, *kwargs.values()):
            if not isinstance(value, Iterator):
                count(value)
        if isinstance(owner, str) and function.__name__ in METHOD_GUARDS:
            # Jinja adds what its own functions may want to know of the loop.
            own = {name: kwargs[name] for name in kwargs if not name.startswith("_")}
            METHOD_GUARDS[function.__name__](meter, owner, *args, **own)
        return meter.size(super().call(context, function, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return `str.format` with bounded widths, None for other methods."""
        name = getattr(value, "__name__", "")
        text = getattr(value, "__self__", None)
        is_method = isinstance(value, MethodType | BuiltinMethodType) and isinstance(text, str)
        if not is_method or name not in ("format", "format_map"):
            return None
        return _Format(self, str(text), takes_map=name == "format_map")

    def _owner(self, function: Any) -> Any:
        """Return whose method a function is, None if it is none; refuse what is not listed."""
        if isinstance(function, Macro | LoopContext | BlockReference | _Format | Undefined):
            return None
        if any(function is known for known in self.globals.values()):
            return None
        owner = getattr(function, "__self__", None)
        if isinstance(function, MethodType | BuiltinMethodType):
            for kind, names in METHODS.items():
                if isinstance(owner, kind) and function.__name__ in names:
                    return owner
            if owner is self:
                return None
        elif type(function).__name__ == "Joiner":
            return None
        name = getattr(function, "__name__", type(function).__name__)
        raise SecurityError(f"{name} is not among what a chat template may call")

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter or a test that counts what it reads and what it makes."""
        guard = FILTER_GUARDS.get(name)

        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            meter = self.meter
            # Jinja puts one of these in front for some.
            given = args[isinstance(args[0], Context | EvalContext | Environment) :]
            count = meter.size if name in SHALLOW else meter.whole
            for value in (*given, *kwargs.values()):
                if not isinstance(value, Iterator):
                    count(value)
            if guard is not None:
                guard(meter, *given, **kwargs)
            if name in SLOW and len(str(given[0])) > MAX_SLOW_CHARACTERS:
                raise OverflowError(f"{name} of more than {MAX_SLOW_CHARACTERS:,} characters")
            return meter.size(function(*args, **kwargs))

        return counted


class _GenerationTag(Extension):
    """`{% generation %}`, with which templates mark what the model itself says; nothing more."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """Return what is inside."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Counting(CodeGenerator):
    """Writes the code of a template with the calls that count."""

    # The names are Jinja's.
    def blockvisit(self, nodes: Any, frame: Frame) -> None:
        body = list(nodes)
        self.writeline(f"environment.step({sum(map(_n_characters, body))})")
        super().blockvisit(body, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802
        size = nodes.EnvironmentAttribute("size")
        node.iter = nodes.Call(size, [node.iter], [], None, None).set_lineno(node.lineno)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.concatenated((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        self.write("(")
        self._whole(node.expr, frame)
        for each in node.ops:
            self.write(f" {operators[each.op]} ")
            self._whole(each.expr, frame)
        self.write(")")

    def _whole(self, node: nodes.Expr, frame: Frame) -> None:
        if isinstance(node, nodes.Const):
            self.visit(node, frame)
            return
        self.write("environment.whole(")
        self.visit(node, frame)
        self.write(")")


class _Namespace(Namespace):
    """Jinja's, which would write out all that it holds: it may hold itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _Formatter(SandboxedFormatter):
    """Refuses fields wider than any text needs."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """Return one field."""
        check_widths(format_spec)
        sandbox = cast(Sandbox, self._env)
        sandbox.whole(value)
        return sandbox.size(super().format_field(value, format_spec))

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        """Return a field as `!r`, `!s` or `!a` say."""
        cast(Sandbox, self._env).whole(value)
        return super().convert_field(value, cast(Any, conversion))


class _Format:
    """`str.format` or `str.format_map` of a text."""

    def __init__(self, sandbox: Sandbox, text: str, *, takes_map: bool) -> None:
        self._sandbox, self._text, self._takes_map = sandbox, text, takes_map

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        self._sandbox.size(self._text)
        formatter = _Formatter(self._sandbox)
        if self._takes_map:
            [fields] = args
            return formatter.vformat(self._text, (), fields)
        return formatter.vformat(self._text, args, kwargs)


def _weight(value: Sized) -> int:
    """Return as how many characters a text or a list counts that is copied."""
    return len(value) * (1 if isinstance(value, str) else ELEMENT_CHARACTERS)


def _n_characters(node: nodes.Node) -> int:
    """Return how much text of the template's own a statement puts out, without those inside."""
    if not isinstance(node, nodes.Output):
        return 0
    return sum(len(each.data) for each in node.nodes if isinstance(each, nodes.TemplateData))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as transformers' filter does: Jinja's own escapes it for HTML."""
    for width in (indent, *(separators or ())):
        check_width(len(width) if isinstance(width, str) else width)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    pieces, n_characters = [], 0
    for piece in encoder.iterencode(value):
        pieces.append(piece)
        n_characters += len(piece)
        if n_characters > MAX_CHARACTERS:
            raise OverflowError(f"JSON of more than {MAX_CHARACTERS:,} characters")
    return "".join(pieces)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    check_width(len(form))
    return datetime.now().strftime(form)
