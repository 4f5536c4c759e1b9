"""A Hub of data sets on this machine: enough of its HTTP for `datasets` to load and stream what a folder holds."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVISION = "0" * 40


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    gated: frozenset[str]

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._send_file(*found.groups())
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            self._send_info(found[1])
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/[^/]+(?:/(.+))?", path):
            recursive = "recursive=true" in self.path.lower()
            self._send_json([self._entry(found[1], path) for path in self._paths(found[1], found[2] or "", recursive)])
        else:
            self._send_error(404, "EntryNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        found = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/paths-info/[^/]+", self.path)
        paths = self._paths(found[1], "", True) if found else []
        self._send_json([self._entry(found[1], path) for path in paths if found and path in asked])

    def _paths(self, name: str, under: str, recursive: bool) -> list[str]:
        root = self.folder / name
        return sorted(str(path.relative_to(root)) for path in (root / under).glob("**/*" if recursive else "*"))

    def _entry(self, name: str, file: str) -> dict:
        if (self.folder / name / file).is_dir():
            return {"type": "directory", "path": file, "oid": REVISION}
        content = (self.folder / name / file).read_bytes()
        return {"type": "file", "path": file, "size": len(content), "oid": sha1(content).hexdigest()}

    def _send_info(self, name: str) -> None:
        if not (self.folder / name).is_dir():
            self._send_error(404, "RepoNotFound")
            return
        files = [{"rfilename": path} for path in self._paths(name, "", True) if (self.folder / name / path).is_file()]
        gated = "manual" if name in self.gated else False
        self._send_json({"id": name, "sha": REVISION, "siblings": files, "gated": gated, "private": False, "tags": []})

    def _send_file(self, name: str, file: str) -> None:
        path = self.folder / name / file
        if name in self.gated:
            self._send_error(403, "GatedRepo")
        elif not path.is_file():
            self._send_error(404, "EntryNotFound")
        else:
            headers = {"ETag": f'"{self._entry(name, file)["oid"]}"', "X-Repo-Commit": REVISION}
            self._send(200, path.read_bytes(), headers)

    def _send_json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send_error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted and status == 200:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            headers |= {"Content-Range": f"bytes {start}-{min(end, len(content) - 1)}/{len(content)}"}
            status, content = 206, content[start : end + 1]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(folder: Path, gated: frozenset[str] = frozenset()) -> Iterator[str]:
    """Serve `folder/OWNER/NAME/...` as data sets; yields the endpoint. Files of `gated` ones are forbidden."""
    handler = type("Handler", (_Handler,), {"folder": folder, "gated": gated})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
