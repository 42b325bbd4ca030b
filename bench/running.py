"""Starts a gateway, times it to its first answer, checks that it works, stops it; and holds it still meanwhile.

Every target has a session of its own: a stopped process of an orphaned group would be ended by the system.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx2
import orjson

from bench.load import Ask
from bench.processes import on_core, pss, rss, send, tree, without_stores
from bench.targets import ADMIN_KEY, Target, filled
from bench.workloads import DIRECTIVE, PAUSES, QUICK, STREAM

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 8.0
SETTLE_SECONDS: Final = 1.0
TOKENS: Final = 20
TOLD: Final = ("x-tierway-", "x-ratelimit-limit-")
"""Headers that show what a gateway did for a request: the routing, the price, the rate limit."""


class Failed(Exception):
    """The target does not do what it must; the message says what."""


class Running:
    """A started target. `ask` tells the load generator where it is."""

    def __init__(self, target: Target, upstreams: Mapping[str, str], run: Path, core: int | None) -> None:
        self.target = target
        self.facts: dict[str, Any] = {}
        self._core = core
        self._folder = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=run))  # it starts with nothing, every time
        self._url_file = self._folder / "url"
        self._upstream = upstreams[target.kind]
        port = free_port()
        self._values = {
            "port": str(port),
            "upstream": self._upstream,
            "upstream_host": self._upstream.removeprefix("http://"),
            "run": str(self._folder),
            "url_file": str(self._url_file),
        }
        self.url = (f"http://127.0.0.1:{port}" if target.command else self._upstream) + target.path
        self.headers = [filled(header, self._values) for header in target.headers]
        self._keys: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    # --- its life ---

    def start(self) -> None:
        """Until it answers. Raises `Failed`."""
        began = time.perf_counter()
        if self.target.command:
            self._launch()
        self._first_answer(began)
        self.facts["start_s"] = time.perf_counter() - began
        if self.target.key is not None:
            self._keys = {model: self._new_key(self.target.key, model) for model in PAUSES}
        self.facts.update(self._checked())
        if self._process is not None:
            time.sleep(SETTLE_SECONDS)
            pids = tree(self._process.pid)
            self.facts |= {
                "processes": len(pids),
                "idle_rss_mb": rss(pids) / 1e6,
                "idle_alone_mb": rss(without_stores(pids)) / 1e6,
                "idle_pss_mb": pss(pids) / 1e6,
            }

    def _launch(self) -> None:
        for name, text in self.target.files.items():
            (self._folder / name).write_text(filled(text, self._values))
        inherited = {name: value for name, value in os.environ.items() if _inherited(name)}
        more = {name: filled(value, self._values) for name, value in self.target.environment.items()}
        command = [filled(part, self._values) for part in self.target.command]
        with on_core(self._core), self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    command,
                    env=inherited | more,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                raise Failed(f"{command[0]} cannot be started: {error.strerror}") from error

    @property
    def folder(self) -> Path:
        """Where its files are, and what it keeps."""
        return self._folder

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _first_answer(self, began: float) -> None:
        last = "nothing"
        while time.perf_counter() - began < START_SECONDS:
            if self._process is not None and self._process.poll() is not None:
                raise Failed(f"it ended with {self._process.returncode}: {self.said()}")
            if self.target.writes_url and self._url_file.exists():
                self.url = self._url_file.read_text().strip().rstrip("/") + self.target.path
            try:
                reply = self._post(QUICK, _body(self.model(QUICK)))
                if reply.status_code == 200:
                    return
                last = f"{reply.status_code} {reply.text[:300]}"
            except httpx2.TransportError as error:
                last = repr(error)
            time.sleep(0.02)
        raise Failed(f"no answer within {START_SECONDS:.0f} s; the last was {last}")

    def stop(self) -> None:
        """In order if it can, with all that it started."""
        if self._process is None:
            return
        pids = tree(self._process.pid)
        send(pids, signal.SIGCONT)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        send([pid for pid in pids if Path(f"/proc/{pid}").exists()], signal.SIGKILL)
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Nothing of it runs until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        time.sleep(0.05)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            send(tree(self._process.pid), number)

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-1_000:].strip() if self._log.exists() else ""

    # --- talking to it ---

    def model(self, name: str) -> str:
        return filled(self.target.model, {"model": name})

    def ask(self, model: str) -> Ask:
        pid = None if self._process is None else self._process.pid
        return Ask(self.url, self.model(model), tuple(self.headers_for(model)), pid)

    def headers_for(self, model: str) -> list[str]:
        """With the key of that model, where there is one."""
        key = self._keys.get(model)
        return self.headers if key is None else [f"Authorization: Bearer {key}"]

    def _checked(self) -> dict[str, Any]:
        """What it does with an answer, a stream and a wrong key. Raises `Failed` for an answer or stream it spoils."""
        answer = self._post(QUICK, _body(self.model(QUICK)))
        if answer.status_code != 200 or not answer.json()["choices"][0]["message"]["content"]:
            raise Failed(f"no content in its answer: {answer.text[:300]}")
        stream = self._post(STREAM, _body(self.model(STREAM), stream=True, stream_options={"include_usage": True}))
        facts = stream_facts(stream.content)
        if facts["content_events"] < TOKENS or not facts["done"]:
            raise Failed(f"a stream of {TOKENS} tokens came as {facts}: {stream.text[:300]}")
        wrong = self._post(QUICK, _body(self.model(QUICK)), ("Authorization: Bearer wrong",))
        said = {name: value for name, value in answer.headers.items() if name.startswith(TOLD)}
        return {"stream": facts, "wrong_key_status": wrong.status_code, "said": said}

    def _new_key(self, spec: Mapping[str, Any], model: str) -> str:
        url = self.url.removesuffix(self.target.path) + "/admin/keys"
        body = filled(orjson.dumps(dict(spec)).decode(), {"model": model})
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json"}
        with httpx2.Client(trust_env=False, timeout=30.0) as client:
            reply = client.post(url, content=body, headers=headers)
        if reply.status_code // 100 != 2:
            raise Failed(f"it made no key: {reply.status_code} {reply.text[:300]}")
        return str(reply.json()["key"])

    def _post(self, model: str, body: dict[str, Any], headers: Sequence[str] | None = None) -> httpx2.Response:
        pairs = dict(line.split(": ", 1) for line in (self.headers_for(model) if headers is None else headers))
        with httpx2.Client(trust_env=False, timeout=30.0) as client:
            return client.post(f"{self.url}/chat/completions", json=body, headers=pairs)


def stream_facts(body: bytes) -> dict[str, Any]:
    """What a stream held. Raises `Failed` where it is no stream of events."""
    lines = [line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")]
    try:
        chunks = [orjson.loads(line) for line in lines if line != b"[DONE]"]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices") or ()]
        content = sum(bool(delta.get("content")) for delta in deltas)
        usage = any(chunk.get("usage") for chunk in chunks)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failed(f"its stream cannot be read: {body[:300]!r}") from error
    return {"events": len(lines), "content_events": content, "usage": usage, "done": b"[DONE]" in lines}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _body(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": f"hello {DIRECTIVE}{TOKENS}"}], **more}


def _inherited(name: str) -> bool:
    """What of our environment a target gets: not what would configure it, nor proxies."""
    return not name.upper().endswith("_PROXY") and not name.startswith(("TIERWAY_", "FEATURE_", "REDIS_URL", "OTEL_"))
