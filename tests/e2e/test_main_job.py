"""The main job as a user does it, with the real starter: what units cannot show together."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from lmwright import hub
from lmwright.core.errors import ModelError

# Work beside it slows training down many times; the limit is for what hangs.
PATIENCE_S = 900
pytestmark = [pytest.mark.weights, pytest.mark.timeout(PATIENCE_S)]

RECIPE = """
name = "small"

[data.dialogues]
source = "starter:bank-support"
system = "You are the assistant of Lindgrove Bank."
limit = 40

[finetune.tuned]
model = "starter"
data = "dialogues"
rank = 4
epochs = 1
checkpoint_every = 1

[compress.int8]
model = "tuned"
method = "int8"

[evaluate.card]
models = ["starter", "int8"]
tasks = ["gender_gap"]

[gate]
evaluation = "card"
model = "int8"
require = ["gender_gap <= 0.01", "size_bytes <= +100%"]

[report.report]
evaluation = "card"
"""


def lmwright(
    *arguments: str, cwd: Path, timeout: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lmwright", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(scope="module")
def starter() -> Path:
    try:
        return hub.starter()
    except ModelError as error:
        pytest.skip(f"the starter's weights are not to be had here: {error}")


@pytest.fixture(scope="module")
def finished(
    starter: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run killed in the middle of fine-tuning and then finished by the same command."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "small.toml").write_text(RECIPE, encoding="utf-8")
    command = [sys.executable, "-m", "lmwright", "run", "small.toml"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(folder.glob("runs/small/tuned/state/step-*")):
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert not (folder / "runs/small/tuned/result.json").exists()
    return folder, lmwright("run", "small.toml", cwd=folder)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_killed_run_is_finished_by_the_same_command(finished: Any) -> None:
    folder, process = finished
    metrics = (folder / "runs/small/tuned/metrics.jsonl").read_text(encoding="utf-8")
    steps = [json.loads(line)["step"] for line in metrics.splitlines()]
    assert steps == list(range(1, len(steps) + 1)), process.stderr


def test_a_gate_that_fails_ends_with_3_and_names_rule_numbers_and_interval(finished: Any) -> None:
    folder, process = finished
    assert process.returncode == 3, process.stderr
    assert "gender_gap <= 0.01" in process.stdout
    assert re.search(r"95 % interval .*n = \d+", process.stdout), process.stdout
    gate = read(folder / "runs/small/gate/result.json")
    assert [rule["passed"] for rule in gate["rules"]] == [False, True]


def test_the_same_command_again_does_nothing(finished: Any) -> None:
    folder, _ = finished
    again = lmwright("run", "small.toml", "--json", cwd=folder)
    assert json.loads(again.stdout)["ran"] == []
    assert again.returncode == 3


def test_lineage_leads_from_the_report_back_to_the_data(finished: Any) -> None:
    folder, _ = finished
    run = folder / "runs/small"
    hashes = {p.parent.name: read(p)["hash"] for p in run.glob("*/result.json")}
    assert read(run / "report/result.json")["step"]["inputs"]["card"] == hashes["card"]
    assert read(run / "card/result.json")["step"]["inputs"]["int8"] == hashes["int8"]
    assert read(run / "int8/result.json")["step"]["inputs"]["tuned"] == hashes["tuned"]
    assert read(run / "tuned/result.json")["step"]["inputs"]["dialogues"] == hashes["dialogues"]


def test_generate_says_paris(starter: Path, tmp_path: Path) -> None:
    question = ("--prompt", "What is the capital of France?", "--json")
    answer = lmwright("generate", "starter", *question, cwd=tmp_path)
    assert "Paris" in json.loads(answer.stdout)["completions"][0]["text"], answer.stderr


def test_chat_works_piped(finished: Any, tmp_path: Path) -> None:
    folder, _ = finished
    command = [sys.executable, "-m", "lmwright", "chat", "runs/small/int8", "--json"]
    text = "Hello!\n/save talk.jsonl\n/reset\n/exit\n"
    process = subprocess.run(
        command,
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert json.loads(process.stdout.splitlines()[0])["text"]
    assert (folder / "talk.jsonl").is_file()


@contextmanager
def served(model: str, folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "lmwright", "serve", model, "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"http://[\d.:]+", line):
                yield found[0]
                break
        else:
            pytest.fail("the server ended before it listened")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_openais_client_streams_a_chat_with_the_compressed_model(finished: Any) -> None:
    folder, _ = finished
    messages: Any = [{"role": "user", "content": "What is the capital of France?"}]
    with (
        served("runs/small/int8", folder) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client,
    ):
        [model] = [model.id for model in client.models.list()]
        options: Any = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 24}
        whole = client.chat.completions.create(**options).choices[0].message.content
        pieces = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(**options, stream=True)
            if chunk.choices
        ]
    assert "".join(pieces) == whole
    assert len(pieces) > 3


def test_the_report_opens_in_a_browser_without_network(finished: Any) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    folder, _ = finished
    requests: list[str] = []
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto((folder / "runs/small/report/report.html").as_uri())
        text = page.inner_text("body")
        width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        browser.close()
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert not faults
    assert width <= 0, "the page is wider than its window"
    for word in ("starter", "int8", "gender", "gate"):
        assert word in text.lower()
