"""The command line is what people and scripts hold on to: exit codes, streams, instant help."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import lmwright
from lmwright import cli, lm
from lmwright.cli.recipes import evaluation_recipe
from lmwright.core.errors import LmwrightError, RequestError, is_out_of_memory
from lmwright.data.config import Data
from lmwright.engine.request import Chunk, Completion, Prompt, Sampling
from lmwright.lm import ModelInfo

ROOT = str(Path(lmwright.__file__).parent.parent)


class Parrot:
    """A language model that repeats what it is told, word by word."""

    def __init__(self, name: str, *, has_template: bool = True) -> None:
        self.name = name
        self.chat_template = "template" if has_template else None
        self.can_chat = has_template
        self.vocab_size = 7

    @property
    def tokenizer(self) -> "Parrot":
        return self

    @property
    def info(self) -> ModelInfo:
        return ModelInfo("parrot", 10, 20, 16.0, 64, "float32", "cpu")

    def completions(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        # The shorter a prompt, the sooner it is answered.
        for i, prompt in sorted(enumerate(prompts), key=lambda pair: len(pair[1])):
            if "INTERRUPT" in prompt:
                raise KeyboardInterrupt
            yield i, self._say(prompt, sampling)

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Chunk]:
        completion = self._say(prompt, sampling)
        for word in completion.text.split():
            if word == "INTERRUPT":
                raise KeyboardInterrupt
            if word == "TOOLONG":
                raise RequestError("the prompt is too long")
            yield Chunk(f"{word} ")
        yield Chunk("", completion=completion)

    def _say(self, prompt: Prompt, sampling: Sampling) -> Completion:
        said = f"text:{prompt}" if isinstance(prompt, str) else f"chat:{prompt[-1]['content']}"  # type: ignore[index]
        words = said.split()[: sampling.max_tokens]
        reason = "length" if len(words) < len(said.split()) else "stop"
        return Completion(" ".join(words), tuple(range(len(words))), reason, 1)


@pytest.fixture(autouse=True)
def _parrots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lm, "load", lambda model: Parrot(model, has_template=model != "plain"))


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str | bytes) -> None:
    raw = [line.encode() if isinstance(line, str) else line for line in lines]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(raw))))


def process(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    program = "import sys; from lmwright.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": ROOT},
        text=True,
        capture_output=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from lmwright.cli import main
code = main(["--help"])
heavy = {"numpy", "torch", "pydantic", "rich", "tokenizers", "filelock", "huggingface_hub"}
heavy |= {"prompt_toolkit"}
print("heavy:", sorted(heavy & set(sys.modules)), code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": ROOT},
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.endswith("heavy: [] 0\n")
    for verb in (
        "new",
        "run",
        "generate",
        "chat",
        "evaluate",
        "show",
        "doctor",
        "convert",
        "verify",
        "serve",
    ):
        assert f"\n  {verb} " in done.stdout


def test_help_takes_under_a_fifth_of_a_second() -> None:
    def once() -> float:
        before = os.times()
        assert process("--help").returncode == 0
        after = os.times()
        return (
            after.children_user
            + after.children_system
            - (before.children_user + before.children_system)
        )

    # The processor's time, not the clock's, for the machine may be busy with other things.
    assert min(once() for _ in range(3)) < 0.2


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lmwright {lmwright.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--bad"],
        ["rn"],
        ["run"],
        ["run", "none.toml"],
        ["generate", "starter"],
        ["generate", "starter", "--prompt", "a", "--prompts", "b"],
        ["generate", "starter", "--prompts", "none.txt"],
        ["generate", "starter", "--prompt", "a", "--max-tokens", "0"],
        ["generate", "starter", "--prompt", "a", "--top-p", "nan"],
        ["generate", "starter", "--prompt", "a", "--seed", "-1"],
        ["new", "x", "--template", "suport"],
        ["new", "../x"],
        ["evaluate", "no/such"],
        ["evaluate", "starter", "--suite", "quik"],
        ["evaluate", "starter", "--tasks", "fcts"],
        ["serve", "starter", "--port", "99999"],
        ["verify", "starter"],
        ["verify", "no/such", "no/such"],
        ["verify", "openai:a@http://127.0.0.1:9/v1", "openai:b@http://127.0.0.1:9/v1"],
        ["verify", "a", "b", "--prompts", "none.txt"],
        ["verify", "a", "b", "--n-tokens", "0"],
        ["verify", "a", "b", "--tolerance", "-1"],
        ["convert", "no/such", "out"],
        ["convert", "no/such", "out", "--to", "hf"],
        ["convert", "no/such", "out", "--to", "onnx"],
        ["convert", "no/such", "out", "--to", "hf", "--type", "f16"],
        ["convert", "no/such", "out.gguf", "--to", "gguf", "--dtype", "bf16"],
        ["convert", "no/such", "out.gguf", "--to", "gguf", "--type", "q3_k"],
    ],
)
def test_a_wrong_request_ends_with_2_and_a_message_on_stderr(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert "rror: " in written.err
    assert "Traceback" not in written.err


def test_a_failure_ends_with_1_and_debug_shows_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(model: str) -> None:
        raise LmwrightError(f"{model} is damaged")

    monkeypatch.setattr(lm, "load", load)
    assert cli.main(["generate", "starter", "--prompt", "a"]) == 1
    assert capsys.readouterr().err == "error: starter is damaged\n"
    assert cli.main(["--debug", "generate", "starter", "--prompt", "a"]) == 1
    written = capsys.readouterr().err
    assert "Traceback" in written
    assert "in load" in written


def test_a_file_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "starter", "--key-file", "none.key"]) == 1
    assert capsys.readouterr().err == "error: none.key: No such file or directory\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 TiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: not enough memory"
        ),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=range(5),
)
def test_no_memory_is_one_sentence_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fails(_: str) -> None:
        raise error

    monkeypatch.setattr(lm, "load", fails)
    assert cli.main(["generate", "starter", "--prompt", "a"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: out of memory; end other programs, or use a smaller model")
    assert told.count("\n") == 1


def test_torchs_own_word_for_no_memory_is_known() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("size mismatch"))


@pytest.mark.parametrize("verb", [["generate", "m", "--prompt", "a"], ["run", "x.toml"]])
def test_ctrl_c_is_130_and_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    Path("x.toml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.setattr(lm, "load", pressed)
    monkeypatch.setattr("lmwright.data.run.prepare_data", pressed)
    assert cli.main(verb) == 130
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: interrupted")


def test_an_interrupted_measurement_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmwright.evaluation.run.choose", pressed)
    assert cli.main(["evaluate", "starter"]) == 130
    assert "what was measured is lost (with --out DIR it is kept" in capsys.readouterr().err
    assert cli.main(["evaluate", "starter", "--out", "kept"]) == 130
    assert "in evaluate scores; the same command goes on" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error_message() -> None:
    program = f"{sys.executable} -c 'import sys; from lmwright.cli import main; sys.exit(main())'"
    done = subprocess.run(
        ["bash", "-c", f"{program} new x --json | true; {program} run x.toml --dry-run | true"],
        env={**os.environ, "PYTHONPATH": ROOT},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.stderr == ""


def test_new_writes_a_recipe_that_can_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "mine"]) == 0
    assert cli.main(["run", "mine.toml", "--dry-run"]) == 0
    written = capsys.readouterr().out
    assert "next: lmwright run mine.toml" in written
    assert "runs/mine: about" in written
    assert not Path("runs").exists()


def test_new_speaks_of_the_recipe_that_it_writes(capsys: pytest.CaptureFixture[str]) -> None:
    for template in ("support", "own"):
        assert cli.main(["new", f"my-{template}", "--template", template]) == 0
        text = Path(f"my-{template}.toml").read_text(encoding="utf-8")
        for before in (f" {template}.toml", f"runs/{template}/", f'"{template}.jsonl"'):
            assert before not in text
        assert f"lmwright chat runs/my-{template}/int8" in text
    said = capsys.readouterr().out
    assert "next: put your data into my-own.jsonl (docs/data.md), then lmwright run" in said
    Path("other.jsonl").write_text("{}", encoding="utf-8")
    assert cli.main(["new", "other", "--template", "own"]) == 0
    assert "next: lmwright run other.toml" in capsys.readouterr().out


def test_new_offers_a_name_that_will_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "my shop"]) == 2
    said = capsys.readouterr().err
    assert "only letters, digits, - and _" in said
    assert "for example my-shop" in said
    assert cli.main(["new", "x" * 300]) == 2


def test_new_never_overwrites(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text("precious", encoding="utf-8")
    assert cli.main(["new", "mine"]) == 2
    assert Path("mine.toml").read_text(encoding="utf-8") == "precious"
    assert "mine.toml exists already" in capsys.readouterr().err


def test_a_dry_run_as_json_is_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["new", "mine", "--json"])
    assert json.loads(capsys.readouterr().out) == {"recipe": "mine.toml"}
    change = ["--set", "finetune.tuned.rank=8", "--out", "elsewhere"]
    assert cli.main(["run", "mine.toml", "--dry-run", "--json", *change]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["folder"] == "elsewhere"
    steps = {step["name"]: step for step in plan["steps"]}
    assert list(steps) == ["dialogues", "tuned", "int8", "int4", "card", "gate", "report"]
    assert steps["tuned"]["config"]["rank"] == 8
    assert steps["tuned"]["will_run"] is True


RECIPE = """name = "small"
[data.words]
source = "starter:bank-support"
"""


def test_run_and_show_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.toml").write_text(RECIPE, encoding="utf-8")
    assert cli.main(["run", "small.toml", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["ran"], done["skipped"], done["gate"]) == (["words"], [], None)
    assert cli.main(["run", "small.toml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == ["words"]
    assert cli.main(["show", "runs/small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"]["words"]["is_done"] is True
    assert cli.main(["show", "runs/small/words", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_train"] > 100


def test_measuring_without_a_recipe_takes_the_data_of_a_run(tmp_path: Path) -> None:
    Path("small.toml").write_text(RECIPE, encoding="utf-8")
    assert cli.main(["run", "small.toml", "--json"]) == 0
    table = {"models": ["starter"]}
    made = evaluation_recipe(table, str(tmp_path / "runs" / "small" / "words"))
    assert made.tables["data"]["data"] == Data(source="starter:bank-support")
    made = evaluation_recipe(table, "x.jsonl")
    assert made.tables["data"]["data"] == Data(source="x.jsonl")
    assert "data" not in evaluation_recipe(table, None).tables
    Path("result.json").write_text('{"step": {"stage": "finetune"}}', encoding="utf-8")
    with pytest.raises(RequestError, match="not the folder of a data step"):
        evaluation_recipe(table, ".")


def test_measuring_with_data_that_changed_since_the_run_is_refused() -> None:
    facts = [{"question": f"When does {i} open?", "answer": f"At {i}."} for i in range(4)]
    lines = "".join(json.dumps(fact) + "\n" for fact in facts)
    Path("facts.jsonl").write_text(lines, encoding="utf-8")
    text = RECIPE.replace("starter:bank-support", "facts.jsonl")
    Path("small.toml").write_text(text, encoding="utf-8")
    assert cli.main(["run", "small.toml", "--json"]) == 0
    evaluation_recipe({"models": ["starter"]}, "runs/small/words")
    Path("facts.jsonl").write_text(lines.replace("At 3", "At 5"), encoding="utf-8")
    with pytest.raises(RequestError, match=r"facts\.jsonl has changed since .*--data facts\.jsonl"):
        evaluation_recipe({"models": ["starter"]}, "runs/small/words")


def test_show_tells_what_a_model_is(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(tiny_folder), "--json", "--context", "100", "--batch", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["architecture"], found["vocabulary"]) == ("llama", 300)
    assert [(need["context"], need["batch"]) for need in found["memory"]] == [(100, 2)]
    assert cli.main(["show", str(tiny_folder)]) == 0
    assert "says which token comes next" in capsys.readouterr().out
    assert cli.main(["show", "openai:small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "hosted"


def test_show_takes_a_context_for_models_only(capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.toml").write_text(RECIPE, encoding="utf-8")
    assert cli.main(["run", "small.toml", "--json"]) == 0
    for what in ("runs/small", "runs/small/words"):
        assert cli.main(["show", what, "--context", "5"]) == 2
        assert "--context and --batch are for models" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["starter"], "chat:a b c"),
        (["plain"], "text:a b c"),
        (["starter", "--raw"], "text:a b c"),
        (["plain", "--chat"], "chat:a b c"),
        (["starter", "--max-tokens", "2"], "chat:a b"),
    ],
)
def test_generate_chats_with_a_model_that_can(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["generate", *arguments, "--prompt", "a b c"]) == 0
    assert capsys.readouterr().out.split() == expected.split()


def test_generate_as_json_has_the_same_shape_for_one_and_many(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("prompts.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    assert cli.main(["generate", "plain", "--prompts", "prompts.txt", "--json"]) == 0
    many = json.loads(capsys.readouterr().out)["completions"]
    assert [(c["prompt"], c["text"]) for c in many] == [("one", "text:one"), ("two", "text:two")]
    assert cli.main(["generate", "plain", "--prompt", "one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["completions"] == many[:1]


def test_generate_prints_each_answer_in_order_as_soon_as_it_can(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("prompts.txt").write_text("bb\na\nINTERRUPT ccc\n", encoding="utf-8")
    assert cli.main(["generate", "plain", "--prompts", "prompts.txt"]) == 130
    assert capsys.readouterr().out == "text:bb\ntext:a\n"


def test_generate_as_json_is_one_document_also_of_what_was_done_before_an_interrupt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("prompts.txt").write_text("bb\na\nINTERRUPT ccc\n", encoding="utf-8")
    assert cli.main(["generate", "plain", "--prompts", "prompts.txt", "--json"]) == 130
    found = json.loads(capsys.readouterr().out)
    assert [c["text"] for c in found["completions"]] == ["text:bb", "text:a"]
    assert found["n_prompts"] == 3


def test_a_setting_out_of_range_is_refused_with_its_range(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["generate", "starter", "--prompt", "a", "--temperature", "-1"]) == 2
    assert capsys.readouterr().err == "error: --temperature = -1.0: expected 0 to 100\n"
    assert cli.main(["chat", "--max-tokens", "0"]) == 2
    assert capsys.readouterr().err == "error: --max-tokens = 0: expected 1 or more\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_json_and_text_survive_a_terminal_without_unicode(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    ask = ["generate", "plain", "--prompt", "caf\u00e9 \U0001f600"]
    assert cli.main([*ask, "--json"]) == 0
    sys.stdout.flush()
    found = json.loads(written.getvalue().decode(encoding))
    assert found["completions"][0]["text"] == "text:caf\u00e9 \U0001f600"
    assert cli.main(ask) == 0
    sys.stdout.flush()
    said = written.getvalue().decode(encoding).splitlines()[-1].strip()
    expected = "text:caf\u00e9 \U0001f600" if encoding == "utf-8" else "text:caf\\xe9 \\U0001f600"
    assert said == expected


def test_chat_keeps_a_history_and_obeys_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "hello", "", "/system be brief", "more", "/save talk.jsonl", "/exit", "no")
    assert cli.main(["chat"]) == 0
    assert capsys.readouterr().out == "chat:hello \nchat:more \n"
    saved = json.loads(Path("talk.jsonl").read_text(encoding="utf-8"))["messages"]
    assert [m["role"] for m in saved] == ["system", "user", "assistant", "user", "assistant"]


def test_ctrl_c_ends_a_reply_but_not_the_chat(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "one INTERRUPT two", "again")
    assert cli.main(["chat", "--json"]) == 0
    replies = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["text"], r["is_cut"]) for r in replies] == [
        ("chat:one ", True),
        ("chat:again ", False),
    ]


def test_an_error_in_a_chat_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "x TOOLONG", "/rest", "again")
    assert cli.main(["chat"]) == 0
    written = capsys.readouterr()
    assert "chat:again" in written.out
    assert "error: the prompt is too long" in written.err
    assert "/rest: no such command; did you mean '/reset'?" in written.err


def test_a_save_that_fails_keeps_the_dialogue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("plain.jsonl").mkdir()
    typed(monkeypatch, "hello", "/save plain.jsonl", "/save talk.jsonl")
    assert cli.main(["chat"]) == 0
    assert "error: cannot write plain.jsonl: Is a directory" in capsys.readouterr().err
    assert len(json.loads(Path("talk.jsonl").read_text(encoding="utf-8"))["messages"]) == 2


def test_a_line_that_is_not_utf_8_is_told_and_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, b"caf\xe9", "again")
    assert cli.main(["chat"]) == 0
    written = capsys.readouterr()
    assert written.out == "chat:again \n"
    assert "not UTF-8 (byte 3 of the line" in written.err


def test_chat_says_when_an_answer_stops_for_its_length(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "a b c d", "/set max_tokens=9", "/retry")
    assert cli.main(["chat", "--max-tokens", "2"]) == 0
    assert capsys.readouterr().out == "chat:a b  [max_tokens = 2 reached]\nchat:a b c d \n"


def test_a_model_without_a_chat_template_is_refused_before_anything_is_typed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["chat", "plain"]) == 2
    assert "lmwright generate plain --prompt TEXT" in capsys.readouterr().err


def test_doctor_names_a_remedy_for_a_broken_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.toml").write_text("name = ", encoding="utf-8")
    assert cli.main(["doctor", "broken.toml", "--json"]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["recipe"]["status"] == "fail"
    assert checks["recipe"]["remedy"]
    assert checks["python"]["status"] == "ok"


def test_verify_says_pass_or_fail_by_its_exit_code(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("prompts.txt").write_text("The bank\nA card\n", encoding="utf-8")
    few = ["--prompts", "prompts.txt", "--n-tokens", "3"]
    assert cli.main(["verify", str(tiny_folder), str(tiny_folder), *few]) == 0
    assert "\nPASS: largest difference 0, " in capsys.readouterr().out
    other = Path("other")
    shutil.copytree(tiny_folder, other)
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    assert cli.main(["verify", str(tiny_folder), str(other), *few, "--json"]) == 1
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["is_passed"], verdict["n_prompts"], verdict["n_positions"]) == (False, 2, 6)
    wrong = [check["name"] for check in verdict["checks"] if check["is_passed"] is False]
    assert wrong == ["tokens of texts", "chat template"]


def test_verify_takes_a_tolerance(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert = ["convert", str(tiny_folder), "small", "--to", "hf", "--dtype", "bf16", "--json"]
    assert cli.main(convert) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["out"], done["format"]) == ("small", "bf16")
    assert done["verdicts"][0]["is_passed"] is True
    pair = ["verify", str(tiny_folder), "small", "--n-tokens", "2"]
    assert cli.main([*pair, "--tolerance", "1"]) == 0
    assert cli.main([*pair, "--tolerance", "0.000001"]) == 1
    assert "FAIL  largest difference of logits" in capsys.readouterr().out


def test_convert_never_overwrites_and_says_what_it_wrote(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["convert", str(tiny_folder), "out", "--to", "hf"]) == 0
    assert capsys.readouterr().out.endswith("wrote out (fp32, 0 MB)\n")
    assert cli.main(["convert", str(tiny_folder), "out", "--to", "hf"]) == 2
    assert "out exists already" in capsys.readouterr().err
    assert cli.main(["convert", str(tiny_folder), "out", "--to", "hf", "--force"]) == 0
