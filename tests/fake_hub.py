"""As much of the Hugging Face Hub, at a port of this machine, as our downloads speak with."""

import contextlib
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# huggingface_hub saves a download in pieces of 10 MiB: this is a little more.
WEIGHTS = bytes(range(256)) * 45_000
COMMIT = "a" * 40
REPOSITORY = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "pytorch_model.bin": b"pickle",
    "modeling_evil.py": b"import os",
    "consolidated.safetensors": b"the same again",
    "onnx/model.safetensors": b"and again",
}
DATASET = {"train.jsonl": b"{}\n", "data/test.parquet": b"PAR1", "load.py": b"import os"}
GGUFS = {
    "README.md": b"# tiny",
    "tiny-Q4_K_M.gguf": b"GGUF four",
    "tiny-UD-Q4_K_XL.gguf": b"GGUF dynamic",
    "tiny-Q8_0.gguf": WEIGHTS,
    "tiny-F16-00001-of-00002.gguf": b"GGUF half",
    "mmproj-tiny-F16.gguf": b"GGUF eyes",
    "old/tiny-Q5_K_M.gguf": b"GGUF old",
    "new/tiny-Q5_K_M.gguf": b"GGUF new",
}


class Huge(bytes):
    """A file that is said to be larger than any disk."""

    def __len__(self) -> int:
        return 10**15


FILES = {
    "models/org/tiny": REPOSITORY,
    "datasets/org/tiny": DATASET,
    "models/org/ggufs": GGUFS,
    "models/org/both": {**REPOSITORY, "both-q8_0.gguf": b"GGUF both"},
    "models/org/empty": {"README.md": b"nothing"},
    "models/org/huge": {"config.json": b"{}", "model.safetensors": Huge(b"x")},
    "models/org/huge-gguf": {"huge-Q4_0.gguf": Huge(b"x")},
}


class HubServer(ThreadingHTTPServer):
    """As much of the Hugging Face Hub's API as snapshot_download speaks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.requests: list[str] = []
        # How many answers with weights break off after 11 megabytes.
        self.n_interruptions = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def downloads(self, name: str) -> list[str]:
        """The GET requests for a file, with their byte ranges."""
        return [r.removeprefix("GET ") for r in self.requests if r.startswith("GET ") and name in r]


class HubHandler(BaseHTTPRequestHandler):
    """Answers for one model, one data set, and repositories that do not let one in."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        span = self.headers.get("Range", "")
        self.server.requests.append(f"{self.command} {path} {span}".strip())
        if "/org/gated" in path:
            return self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        kind = "datasets" if "datasets/" in path else "models"
        name = next((each for each in FILES if f"/{each.partition('/')[2]}/" in path
                     and each.startswith(kind)), None)  # fmt: skip
        if name is None:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        files = FILES[name]
        if path in (f"/api/{name}/revision/{r}" for r in ("main", "v1", COMMIT)):
            siblings = [{"rfilename": n, "size": d.__len__()} for n, d in files.items()]
            info = {"id": name.partition("/")[2], "sha": COMMIT, "siblings": siblings}
            return self.send(200, json.dumps(info).encode())
        if path in (f"/api/{name}/tree/{r}" for r in ("main", "v1", COMMIT)):
            tree = [
                {"type": "file", "path": name, "size": data.__len__(), "oid": etag(data)}
                for name, data in files.items()
            ]
            return self.send(200, json.dumps(tree).encode())
        for revision in ("main", "v1", COMMIT):
            file = path.partition(f"/{name.partition('/')[2]}/resolve/{revision}/")[2]
            if file in files:
                return self.send_file(files[file], span)
        return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def send_file(self, data: bytes, span: str) -> None:
        start = int(span.removeprefix("bytes=").partition("-")[0]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{etag(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "HEAD":
            return
        if data is WEIGHTS and self.server.n_interruptions:
            self.server.n_interruptions -= 1
            self.wfile.write(data[start : start + 11_000_000])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(data[start:])


def etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextlib.contextmanager
def fake_hub() -> Iterator[HubServer]:
    """Run the server in a thread."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def environment(url: str, home: Path) -> dict[str, str]:
    """For a process of its own: huggingface_hub reads its environment when it is imported."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))},
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
