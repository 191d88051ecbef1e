"""What keeps a growing tree readable is held by a test: sizes, names, circles, dead code."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import lmwright

ROOT = Path(lmwright.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TOP_LEVEL = {"__init__", "__main__", "lm"}
VAGUE = {"utils", "common", "helpers", "misc", "base", "manager"}
# Public functions and classes that nothing in src/ calls, each with its reason.
UNCALLED: dict[str, str] = {}
# A text that names something of ours: "lmwright.data.run:run", "list[TensorRow]".
TEXTS = re.compile(r"[\w.:]+|[\w.]+\[[\w., |\[\]]+\]")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def repeated(names: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: places for name, places in sorted(names.items()) if len(places) > 1}


def is_alias(node: ast.stmt) -> bool:
    """Whether a module names a type: Head = Literal[...], Settings = Mapping[str, Any]."""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return False
    is_capitalised = re.fullmatch(r"[A-Z][a-z]\w*", node.targets[0].id) is not None
    return is_capitalised and not isinstance(node.value, ast.Call)


def public_types(path: Path) -> Iterator[str]:
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
        elif is_alias(node):
            assert isinstance(node, ast.Assign)
            yield ast.unparse(node.targets[0])


def test_no_two_public_classes_or_type_aliases_share_a_name():
    places = defaultdict(list)
    for path in FILES:
        for name in public_types(path):
            places[name].append(short(path))
    assert repeated(places) == {}


def test_no_function_is_longer_than_a_screen():
    found = {
        f"{short(path)}:{node.name}": n_lines
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (n_lines := (node.end_lineno or 0) - node.lineno + 1) > 60
    }
    assert found == {}


def test_no_file_is_longer_than_four_hundred_lines():
    lengths = {short(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_only_the_entrances_lie_beside_the_packages():
    assert {path.stem for path in ROOT.glob("*.py")} == TOP_LEVEL


def test_no_module_has_a_name_that_says_nothing():
    words = {short(path): set(path.stem.split("_")) | {path.parent.name} for path in FILES}
    assert {name: found for name, each in words.items() if (found := each & VAGUE)} == {}


def module_name(path: Path) -> str:
    parts = ("lmwright", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """Return the modules of ours that a file names, also inside functions and for types only."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{short(path)}:{node.lineno}: a relative import"
            inner = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in MODULES else str(node.module) for name in inner}
    return found & MODULES.keys()


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that reach each other (Tarjan 1972)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(name: str) -> None:
        numbers[name] = lowest[name] = len(numbers)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in numbers:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], numbers[other])
        if lowest[name] == numbers[name]:
            at = stack.index(name)
            groups.append(sorted(stack[at:]))
            del stack[at:]

    for name in sorted(graph):
        if name not in numbers:
            visit(name)
    return [group for group in groups if len(group) > 1]


def test_no_files_import_each_other_in_a_circle():
    # The package's __init__ gathers the public names from everywhere, and only offers a version.
    graph = {
        name: imports(path) - {"lmwright", name}
        for name, path in MODULES.items()
        if name != "lmwright"
    }
    assert circles(graph) == []


def public_definitions(path: Path) -> Iterator[str]:
    for node in tree(path).body:
        is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if is_definition and not node.name.startswith("_"):
            yield node.name


def names_used(path: Path) -> set[str]:
    """Return every name that a file reads, also in texts such as "module:run" and "list[Row]"."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.Constant) and TEXTS.fullmatch(str(node.value)):
            found |= set(re.findall(r"\w+", str(node.value)))
    return found


def test_every_public_function_and_class_is_used_or_exported():
    used = set(lmwright.__all__)
    for path in FILES:
        used |= names_used(path)
    found = {
        f"{short(path)}:{name}"
        for path in FILES
        for name in public_definitions(path)
        if name not in used
    }
    assert found == set(UNCALLED)
