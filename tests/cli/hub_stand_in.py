"""As much of the Hugging Face Hub's HTTP API as an upload needs, on this machine."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

WRITER, READER = "hf_may_write", "hf_may_read"
"""Tokens; others are unknown."""


@dataclass
class Hub:
    """The repositories by name, each with its files."""

    address: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def answer(self, path: str, token: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON for a POST."""
        if token not in (WRITER, READER):
            return 401, {"error": "Invalid credentials in Authorization header"}
        if token == READER:
            return 403, {"error": "You don't have the rights to create a model"}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            broken = b"model-index" not in body
            return (400, {"errors": [{"message": "no results"}]}) if broken else (200, {})
        _, _, kind, organisation, name, action, revision = path.split("/")
        assert (kind, revision) == ("models", "main")
        if action == "preupload":
            files = json.loads(body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return 200, {"files": [{"path": file["path"], **modes} for file in files]}
        assert action == "commit"
        return self._commit(f"{organisation}/{name}", body)

    def _create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = f"{asked.pop('organization')}/{asked.pop('name')}"
        address = {"url": f"{self.address}/{name}"}
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", **address}
        self.repositories[name], self.settings = {}, asked
        return 200, address

    def _commit(self, name: str, body: bytes) -> tuple[int, dict[str, Any]]:
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                file = entry["value"]
                self.repositories[name][file["path"]] = base64.b64decode(file["content"])
        url = f"{self.address}/{name}/commit/abc"
        return 200, {"commitUrl": url, "commitOid": "abc", "success": True}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers on a port of its own until the end of the block."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            self._reply(*hub.answer(self.path, token, body))

        def do_GET(self) -> None:
            self._reply(404, {"error": "not found"})

        def _reply(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
