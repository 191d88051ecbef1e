"""Documentation that nothing runs is wrong within a month: every snippet runs here.

Commands that need minutes are read by the real parser; all else is executed, with a tiny model in
place of the starter. Tables and links are in test_pages.py.
"""

import asyncio
import json
import re
import shlex
import shutil
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import typer.main
import uvicorn

import lmwright
from lmwright import cli, lm
from lmwright.data import samples
from lmwright.evaluation.tasks import MEASUREMENTS
from lmwright.gate import rules
from lmwright.gate.config import Gate
from lmwright.model.config import ModelConfig
from lmwright.model.transformer import DecoderLM, EncoderDecoderLM, EncoderLM
from lmwright.recipe.plan import plan
from lmwright.recipe.read import parse
from lmwright.recipe.stages import STAGES
from lmwright.serving.app import create_app, listen
from lmwright.tokenizer.encode import Tokenizer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
# The options of other programs that the pages may use.
PYTEST_FLAGS = {"-m", "-k", "-q", "-x", "-s", "-n"}


@dataclass(frozen=True)
class Snippet:
    """A fenced block with the place that it stands at."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def snippets(page: Path) -> Iterator[Snippet]:
    language, lines, start = "", [], 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            if start:
                yield Snippet(page, start, language, "\n".join(lines) + "\n")
                start = 0
            else:
                language, lines, start = line.removeprefix("```").strip(), [], number
        elif start:
            lines.append(line)
    assert not start, f"{page}: the block of line {start} is not closed"


SNIPPETS = [snippet for page in PAGES for snippet in snippets(page)]


def of(language: str) -> list[Any]:
    found = [snippet for snippet in SNIPPETS if snippet.language == language]
    assert found, f"no {language} snippet: is the documentation read at all?"
    return [pytest.param(snippet, id=str(snippet)) for snippet in found]


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Return (place, words) of every shell line, and of what is a command inside a text."""
    found = []
    for snippet in snippets(page):
        if snippet.language == "bash":
            for offset, line in enumerate(snippet.text.splitlines(), start=1):
                words = shlex.split(line, comments=True)
                found.append((f"{page.name}:{snippet.line + offset}", words))
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for inline in re.findall(r"`((?:lmwright|make|pip) [^`]+)`", text):
        found.append((f"{page.name}: {inline}", shlex.split(inline)))
    return [(place, words) for place, words in found if words]


ALL_COMMANDS = [pytest.param(words, id=place) for page in PAGES for place, words in commands(page)]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data that the pages speak of."""
    lines: list[dict[str, Any]] = [
        {"prompt": f"What does card {i} cost?", "completion": f"It costs {i} euros."}
        for i in range(6)
    ]
    fact = {"questions": ["When is lunch?"], "answers": ["At noon."]}
    lines.append(fact | {"heldout": ["When do we eat?"], "accept": ["noon"]})
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "support.jsonl").write_text(text, encoding="utf-8")
    shutil.copytree(EXAMPLES, tmp_path / "docs" / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(tiny_config: ModelConfig, tiny_tokenizer: Tokenizer) -> lm.LocalModel:
    """A random model that takes prompts of any length that the evaluation has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DecoderLM(replace(tiny_config, max_positions=4096)).eval()
    return lm.local_model(model.requires_grad_(False), tiny_tokenizer, name="starter")


# ---- commands


@pytest.mark.parametrize("words", ALL_COMMANDS)
def test_every_command_is_one_that_its_program_takes(words: list[str]) -> None:
    program, *rest = words
    PROGRAMS[program](rest)


def takes_lmwright(words: list[str]) -> None:
    if words in (["--help"], ["--version"]):
        return
    verb, *rest = words
    # In text, `lmwright new` names the verb only.
    if rest:
        COMMANDS[verb].make_context(verb, rest)
    assert verb in COMMANDS


def takes_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in words:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def takes_pip(words: list[str]) -> None:
    assert words[0] == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in words[1:]:
        found = re.fullmatch(r"(\.|lmwright)(?:\[([\w,-]+)\])?", requirement)
        assert found, requirement
        assert set((found[2] or "train").split(",")) <= set(project["optional-dependencies"])


def takes_python(words: list[str]) -> None:
    assert words[:2] == ["-m", "pytest"]
    for word in words[2:]:
        assert word in PYTEST_FLAGS if word.startswith("-") else (ROOT / word).exists(), word


def takes_curl(words: list[str]) -> None:
    url = next(word for word in words if not word.startswith("-"))
    assert url.startswith("http://127.0.0.1:8000/")
    assert {word for word in words if word.startswith("-")} <= {"-H", "-d"}


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "lmwright": takes_lmwright,
    "make": takes_make,
    "pip": takes_pip,
    ".venv/bin/python": takes_python,
    "curl": takes_curl,
}


def test_a_flag_that_does_not_exist_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        takes_lmwright(["run", "x.toml", "--dry"])
    with pytest.raises(KeyError):
        takes_lmwright(["trian", "x.toml"])
    with pytest.raises(AssertionError):
        takes_make(["dmeo"])


def is_cheap(words: list[str]) -> bool:
    if words[:2] == ["lmwright", "show"]:
        return Path(words[-1]).exists()
    is_short_run = {"--dry-run", "dialogues"} & set(words)
    return words[:2] == ["lmwright", "new"] or bool(
        words[:2] == ["lmwright", "run"] and is_short_run
    )


@pytest.mark.parametrize(
    "page", ["README.md", "docs/quickstart.md", "docs/recipe.md", "docs/data.md"]
)
def test_cheap_commands_work_one_after_another(page: str, workspace: Path) -> None:
    n_done = 0
    for place, words in commands(ROOT / page):
        is_line = re.fullmatch(r".+:\d+", place)
        if is_line and is_cheap(words):
            assert cli.main(words[1:]) == 0, place
            n_done += 1
    assert n_done >= 2
    assert list(workspace.glob("*.toml")) or (workspace / "runs").is_dir()


@pytest.mark.parametrize("page", ["docs/serving.md", "docs/quickstart.md"])
def test_curl_gets_an_answer(page: str, tiny: lm.LocalModel) -> None:
    sent = [words for _, words in commands(ROOT / page) if words[0] == "curl"]
    assert sent
    bodies = {words[words.index("-d") + 1] for words in sent if "-d" in words}
    tiny.name = json.loads(min(bodies))["model"]

    async def answers() -> list[httpx.Response]:
        app = create_app(tiny)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
        ):
            return [await request(client, words) for words in sent]

    async def request(client: httpx.AsyncClient, words: list[str]) -> httpx.Response:
        if "-d" not in words:
            return await client.get(words[1])
        header = words[words.index("-H") + 1].split(": ")
        body = words[words.index("-d") + 1]
        return await client.post(words[1], content=body, headers=dict([header]))

    assert {answer.status_code for answer in asyncio.run(answers())} == {200}


def test_the_overview_names_every_verb() -> None:
    named = {words[1] for _, words in commands(ROOT / "README.md") if words[0] == "lmwright"}
    assert named == set(COMMANDS)


# ---- recipes and data


@pytest.mark.parametrize("snippet", of("toml"))
def test_every_recipe_is_valid(snippet: Snippet, workspace: Path) -> None:
    table = tomllib.loads(snippet.text)
    if "name" in table:
        assert plan(parse(snippet.text)).estimate.is_complete
        return
    for name, given in table.items():
        stage = STAGES[name]
        steps = {name: given} if stage.may_be_unnamed else given
        for step, values in steps.items():
            config = stage.config.read(values, f"{name}.{step}")
            if isinstance(config, Gate):
                for rule in config.require:
                    rules.parse(rule, MEASUREMENTS)


def test_the_quick_start_shows_the_recipe_and_the_records_of_its_example() -> None:
    found = list(snippets(ROOT / "docs" / "quickstart.md"))
    recipes = [snippet.text for snippet in found if snippet.language == "toml"]
    assert recipes[0] == (EXAMPLES / "climbing.toml").read_text(encoding="utf-8")
    records = [path.read_text(encoding="utf-8") for path in EXAMPLES.glob("climbing/*.jsonl")]
    shown = [snippet.text for snippet in found if snippet.language == "json"]
    assert shown
    assert all(any(text in file for file in records) for text in shown)


def test_the_quick_start_counts_what_its_example_holds() -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    pairs, facts = (
        (EXAMPLES / "climbing" / name).read_text(encoding="utf-8").splitlines()
        for name in ("pairs.jsonl", "faq.jsonl")
    )
    n_questions, n_heldout = (
        sum(len(json.loads(fact)[key]) for fact in facts) for key in ("questions", "heldout")
    )
    for text in (
        f"{len(pairs) + len(facts)} records",
        f"{len(pairs)} such\nrecords are in `pairs.jsonl`",
        f"{len(facts)} such records are in `faq.jsonl`: {n_questions}\ntraining questions",
        f"and {n_heldout} held-out ones",
    ):
        assert text in page, text


@pytest.mark.parametrize("snippet", of("json"))
def test_every_record_is_of_a_known_shape(snippet: Snippet) -> None:
    for line in snippet.text.splitlines():
        found, _ = samples.parse(json.loads(line), where=str(snippet), id_="doc", system=None)
        assert found


# ---- Python


def python_pages() -> list[Any]:
    pages = {snippet.page for snippet in SNIPPETS if snippet.language == "python"}
    return [pytest.param(page, id=page.name) for page in sorted(pages)]


@pytest.mark.parametrize("page", python_pages())
def test_python_runs(
    page: Path, workspace: Path, tiny: lm.LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMWRIGHT_HOME", str(workspace / "home"))
    real_load = lm.load
    ours = {"starter": tiny, **other_kinds(tiny)}
    monkeypatch.setattr(
        lm, "load", lambda model, **o: ours[model] if model in ours else real_load(model, **o)
    )
    few = {"qa_accuracy": 2, "multiple_choice": 4, "bits_per_byte": 2, "gender_gap": 1}
    few |= {"refusal_rate": 2, "over_refusal_rate": 2}
    few |= {"prefill_tokens_per_s": 2, "decode_tokens_per_s": 2}
    for metric, n_items in few.items():
        monkeypatch.setitem(MEASUREMENTS[metric].n_items, "quick", n_items)
    namespace: dict[str, Any] = {"__name__": page.stem}
    code = [snippet for snippet in snippets(page) if snippet.language == "python"]
    with served_where_needed(code, tiny) as address:
        for snippet in code:
            # As many line breaks as stand before it, so that a traceback names the page's line.
            text = "\n" * snippet.line + snippet.text.replace("127.0.0.1:8000", address)
            exec(compile(text, str(page), "exec"), namespace)


def other_kinds(tiny: lm.LocalModel) -> dict[str, lm.LocalModel]:
    """The encoder and the encoder-decoder of the Python page, around the same tokenizer."""
    base = lm.modules(tiny).config
    sequence = replace(base, family="bert", head="sequence", labels=("bad", "good"))
    translation = replace(base, family="t5", n_decoder_layers=1, decoder_start_id=0)
    models = {"my-sentiment": EncoderLM(sequence), "my-translator": EncoderDecoderLM(translation)}
    return {
        name: lm.local_model(model, tiny.tokenizer, name=name) for name, model in models.items()
    }


@contextmanager
def served_where_needed(code: list[Snippet], model: lm.LocalModel) -> Iterator[str]:
    """Serve the model under the name that the snippets ask for; give the address."""
    text = "".join(snippet.text for snippet in code)
    name = re.search(r'(?:model="|openai:)(runs/[^"@]+)', text)
    if name is None:
        yield "unused"
        return
    model.name = name[1]
    server = uvicorn.Server(uvicorn.Config(create_app(model), ws="none", log_config=None))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def test_the_error_on_the_python_page_is_the_real_one() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    [said] = re.findall(r"print\(error\) +# (.+)", page)
    with pytest.raises(ValueError, match="rnk") as error:
        lmwright.Finetune(data="support.jsonl", rnk=8)
    assert str(error.value) == said


def test_no_snippet_is_in_a_language_that_nothing_checks() -> None:
    checked = {"bash", "python", "toml", "json"}
    assert {snippet.language for snippet in SNIPPETS} == {*checked, "text"}
