"""A summary as a page for a terminal: a screen, widest where numbers stand side by side."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lmwright.core.stage import PROCESS_BYTES
from lmwright.summary.dialogue import Dialogue
from lmwright.summary.origin import Made
from lmwright.summary.summary import NOT_TOLD, HostedSummary, ModelSummary
from lmwright.tokenizer.summary import TokenizerSummary

# Where the output is no terminal.
WIDTH = 100
# Narrower, and numbers would be cut; the terminal breaks the lines instead.
MIN_WIDTH = 80
# So that the sections stand below one another.
LABEL_WIDTH = 10
# Of a dialogue: a template may put a page of tools before it.
MAX_LINES = 16

# A label and what stands beside it.
Section = list[tuple[str, RenderableType]]


def page(found: ModelSummary | HostedSummary, *, is_terminal: bool) -> str:
    """Return what a model is: for a terminal in colour and in its width."""
    console = Console() if is_terminal else Console(width=WIDTH, color_system=None)
    console.width = max(console.width, MIN_WIDTH)
    sections = _hosted(found) if isinstance(found, HostedSummary) else _sections(found)
    with console.capture() as capture:
        console.print(_plain(found.name, "bold"))
        for number, section in enumerate(sections):
            grid = Table.grid(padding=(0, 2))
            grid.add_column(min_width=LABEL_WIDTH, no_wrap=True)
            grid.add_column(overflow="fold")
            for label, content in section:
                shown = _plain(content) if isinstance(content, str) else content
                grid.add_row(Text(label, style="cyan"), shown)
            if number:
                console.print()
            console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def size(n_bytes: float) -> str:
    """Write bytes with a unit, three digits or fewer."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        value = n_bytes / scale
        if value >= 1:
            n_digits = 0 if value >= 100 else 1 if value >= 10 else 2
            return f"{value:.{n_digits}f} {unit}"
    return f"{n_bytes:.0f} B"


def _hosted(found: HostedSummary) -> list[Section]:
    way = "nobody on the way can read it" if found.is_secret else "readable on the way (http)"
    rows: Section = [
        ("hosted", f"{found.model} at {found.url}"),
        ("sent there", f"every prompt; {way}"),
        ("key", "OPENAI_API_KEY is set" if found.has_key else "OPENAI_API_KEY is not set"),
        ("not told", ", ".join(NOT_TOLD)),
    ]
    return [rows]


def _sections(found: ModelSummary) -> list[Section]:
    specials = [token.text for token in found.tokenizer.special_tokens]
    chat: Section = []
    if found.dialogue is not None:
        chat = list(_dialogue(found.dialogue, specials))
    elif found.inventory.assembly == "decoder":
        chat = [("chat", "no chat template: it continues texts")]
    warnings = [("beware", _plain(text, "yellow")) for text in found.mismatches]
    return [
        _identity(found),
        [("stored", _parts(found))],
        [("to run", _memory(found)), ("", _plain(_memory_note(found), "dim"))],
        [*_tokenizer(found.tokenizer), *warnings, *chat],
    ]


def _identity(found: ModelSummary) -> Section:
    config, kind, source = found.inventory.config, found.inventory.assembly, found.origin
    licence = f"{source.licence} ({source.licence_source})" if source.licence else "not stated"
    article = "a" if kind == "decoder" else "an"
    made = [source.base or "?", *map(_made, source.steps)] if source.steps else []
    last = next(reversed(source.steps), None)
    rows = [
        ("model", f"{config.family}, {article} {kind}; {found.head}"),
        ("embeds", found.pooling),
        ("shape", _shape(found)),
        ("differs", f"from a plain pre-norm decoder by {'; '.join(found.choices) or 'nothing'}"),
        ("file", f"{_short(source.path)} ({size(found.file_bytes)})"),
        ("title", source.title),
        ("made", " -> ".join(made)),
        ("", last and f"{last.time} with lmwright {last.version}; hash {last.hash[:16]}"),
        ("sha256", source.sha256),
        ("licence", licence),
        ("languages", ", ".join(source.languages)),
        ("tags", ", ".join(source.tags)),
    ]
    return [(label, text) for label, text in rows if text]


def _made(step: Made) -> str:
    bits = step.config.get("bits")
    method = f"{step.config.get('method')}{f', {bits} bits' if bits else ''}"
    return f"{step.name} ({step.stage}, {method})"


def _short(path: str) -> str:
    home = str(Path.home())
    return f"~{path.removeprefix(home)}" if path.startswith(home + os.sep) else path


def _shape(found: ModelSummary) -> str:
    config = found.inventory.config
    n_layers = str(config.n_layers)
    if config.n_decoder_layers:
        n_layers += f" + {config.n_decoder_layers}"
    bound = " (lmwright's bound)" if config.positions == "relative" else ""
    return (
        f"{n_layers} layers, {config.d_model:,} wide; {config.n_heads} heads of {config.d_head}; "
        f"feed-forward {config.d_ff:,}; context {found.context_length:,}{bound}; "
        f"vocabulary {config.vocab_size:,}"
    )


def _parts(found: ModelSummary) -> Table:
    inventory = found.inventory
    table = _table("part", "parameters", "share", "bytes", "bits/weight", "format")
    for part in inventory.parts:
        bits = "" if part.bits_per_weight is None else f"{part.bits_per_weight:.2f}"
        table.add_row(
            part.name,
            f"{part.n_params:,}",
            f"{part.n_params / inventory.n_params:.1%}",
            size(part.size_bytes),
            bits,
            _plain("; ".join(part.formats)),
        )
    bits = f"{inventory.bits_per_weight:.2f}"
    whole = [f"{inventory.n_params:,}", "", size(inventory.size_bytes), bits, ""]
    table.add_row("all", *whole, style="bold")
    return table


def _memory(found: ModelSummary) -> Table:
    kind = found.inventory.assembly
    columns = {
        "weights": "weight_bytes",
        **({"keys, values": "cache_bytes"} if kind != "encoder" else {}),
        **({"of the source": "cross_cache_bytes"} if kind == "encoder-decoder" else {}),
        "activations": "activation_bytes",
        "in all": "total_bytes",
    }
    table = _table("context", "batch", *columns, n_left=0)
    for need in found.memory:
        cells = [size(getattr(need, name)) for name in columns.values()]
        table.add_row(f"{need.context:,}", f"{need.batch:,}", *cells)
    return table


def _memory_note(found: ModelSummary) -> str:
    """Say what the table counts, and what it cannot promise."""
    config, kind = found.inventory.config, found.inventory.assembly
    notes = [f"in {found.dtype} on {found.device}, {size(PROCESS_BYTES)} of it Python with torch"]
    if kind == "encoder-decoder":
        notes.append("the context is read, and as much is written")
    if kind != "encoder":
        windows = [config.is_local(i) for i in range(config.n_decoder_layers or config.n_layers)]
        if any(windows):
            notes.append(
                f"all {len(windows)} layers keep all tokens, the {sum(windows)} with a window, too"
            )
        notes.append("while keys and values grow, up to twice their room is held")
    notes.append("activations are estimated")
    return "; ".join(notes)


def _tokenizer(facts: TokenizerSummary) -> Iterator[tuple[str, RenderableType]]:
    lengths = [f"{value:.1f} in {name}" for name, value in facts.characters_per_token.items()]
    case = ", ignores case" if facts.ignores_case else ""
    counts = f"{facts.n_tokens:,} tokens; characters a token: {', '.join(lengths)}"
    yield "tokenizer", f"{facts.kind}{case}; {counts}"
    tokens = [
        f"{token.role} {token.text} {'?' if token.id is None else token.id}"
        for token in facts.special_tokens
    ]
    yield "special", ", ".join(tokens) or "none"
    if facts.around is None:
        yield "a text", "gets special tokens around it once its language is named"
    elif facts.around == ((), ()):
        yield "a text", "gets no special tokens around it"
    else:
        before, behind = facts.around
        yield "a text", f"becomes {' '.join([*before, '...', *behind])}"


def _dialogue(found: Dialogue, specials: Sequence[str]) -> Iterator[tuple[str, RenderableType]]:
    said = [f"a system message is {found.system}"]
    if found.default_system:
        said.append(f"without one: {found.default_system!r}")
    if found.n_tokens is not None:
        said.append(f"this example has {found.n_tokens} tokens")
    yield "chat", "; ".join(said)
    if found.refusal:
        yield "", _plain(found.refusal, "yellow")
    if found.text is not None:
        lines = found.text.splitlines()
        more = [f"... ({len(lines) - MAX_LINES} lines more)"] if len(lines) > MAX_LINES else []
        text = _plain("\n".join([*lines[:MAX_LINES], *more]))
        text.highlight_regex("|".join(map(re.escape, specials)) or r"(?!)", "magenta")
        yield "", text


def _table(*names: str, n_left: int = 1) -> Table:
    """Return a table without lines; numbers stand right, the first `n_left` columns left."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for i, name in enumerate(names):
        is_left = i < n_left or name == "format"
        justify = "left" if is_left else "right"
        table.add_column(name, justify=justify, no_wrap=name != "format")
    return table


def _plain(text: str, style: str = "") -> Text:
    """Return text from outside: brackets are no markup, and escapes do nothing to the terminal."""
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    return Text(shown, style=style)
