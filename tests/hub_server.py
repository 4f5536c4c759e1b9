"""A Hub on this machine: enough of its HTTP for the installed `huggingface_hub` to create, push, pull, load and stream.

Repositories are folders, `ROOT/models/OWNER/NAME` and `ROOT/datasets/OWNER/NAME`. It is strict: a body that the Hub
would not take is answered by 400, a write without the token by 401, an LFS object whose bytes are not what its oid says
by 400, and a request it does not know goes to `strangers`. It leaves out history, branches, multipart and xet. Over 300
lines, for a server is read in one go.
"""

import base64
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

TOKEN = "hf_" + "t" * 34
REPO = r"(?P<repo>[^/]+/[^/]+)"
# What a model card's metadata may say. Source: huggingface.co/docs/hub/model-cards.
CARD_KEYS = {
    *("license", "license_name", "license_link", "language", "tags", "datasets", "metrics", "base_model"),
    *("base_model_relation", "library_name", "pipeline_tag", "model-index", "model_name", "new_version", "widget"),
}
RELATIONS = {"adapter", "finetune", "merge", "quantized"}
REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*|[\w-][\w.-]*")


@dataclass
class Hub:
    """What the server holds and has seen.

    Args:
        root: folder of the repositories.
        lfs: endings of the files that go by LFS.
        gated: data sets whose files are forbidden.
        faults: by repository, the part of the protocol that fails ("create", "preupload", "lfs", "commit") and how: a
            status, or "drop" to hang up in the middle of the body; a third element bounds how often.
    """

    root: Path
    lfs: tuple[str, ...] = (".safetensors", ".parquet", ".png", ".bin", ".pt", ".pth")
    gated: frozenset[str] = frozenset()
    faults: dict[str, list] = field(default_factory=dict)
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    commits: dict[str, list[str]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)

    def folder(self, repo: str, kind: str = "model") -> Path:
        return self.root / f"{kind}s" / repo

    def sha(self, repo: str) -> str:
        return sha1(repr((repo, self.commits.get(repo))).encode()).hexdigest()

    def fault(self, repo: str, part: str) -> int | str | None:
        with self.lock:
            broken, how, *left = self.faults.get(repo, ["", None])
            if broken != part or left == [0]:
                return None
            if left:
                self.faults[repo][2] -= 1
            return how


def card_errors(text: str) -> list[str]:
    """What the Hub would refuse in a README.md's metadata."""
    found = re.match(r"---\r?\n(.*?)\r?\n---(?:\r?\n|$)", text, re.DOTALL)
    if found is None:
        return []
    try:
        data = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        return [str(error)]
    if not isinstance(data, dict):
        return ["metadata must be a mapping"]
    if "configs" in data:
        return []  # a data set's
    errors = [f"unknown key {key!r}" for key in data if key not in CARD_KEYS]
    errors += [f"{key!r} has no value" for key, value in data.items() if value in (None, "", [])]
    for key in ("base_model", "datasets"):
        values = data.get(key) or []
        names = values if isinstance(values, list) else [values]
        errors += [f"{key} {name!r} is no repository id" for name in names if not REPO_ID.fullmatch(str(name))]
    if data.get("base_model_relation", "finetune") not in RELATIONS:
        errors.append(f"base_model_relation {data['base_model_relation']!r}")
    for model in data.get("model-index") or []:
        for result in model["results"]:
            whole = result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]
            if not (whole and all(metric["type"] and "value" in metric for metric in result["metrics"])):
                errors.append(f"model-index: {result}")
    return errors


class _Refused(Exception):  # noqa: N818
    """A request that is answered by an error."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    body: bytes
    routes = (
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", rf"/api/(?:model|dataset)s/{REPO}/preupload/main", "preupload"),
        ("POST", rf"/api/(?:model|dataset)s/{REPO}/commit/main", "commit"),
        ("POST", rf"(?:/datasets)?/{REPO}\.git/info/lfs/objects/batch", "batch"),
        ("PUT", rf"/lfs/{REPO}/(?P<oid>[0-9a-f]{{64}})", "store"),
        ("POST", rf"/api/(?:model|dataset)s/{REPO}/paths-info/[^/]+", "paths_info"),
        ("GET", rf"/api/(?:model|dataset)s/{REPO}/tree/[^/]+(?:/(?P<under>.+))?", "tree"),
        ("GET", rf"/api/(?:model|dataset)s/{REPO}(?:/revision/[^/]+)?", "info"),
        ("GET", rf"/datasets/{REPO}/resolve/[^/]+/(?P<file>.+)", "file"),
        ("GET", rf"/{REPO}/resolve/[^/]+/(?P<file>.+)", "file"),
        ("GET", rf"/api/resolve-cache/(?:model|dataset)s/{REPO}/[^/]+/(?P<file>.+)", "file"),
    )

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        method = {"HEAD": "GET"}.get(self.command, self.command)
        self.hub.requests.append(f"{self.command} {path}")
        for known, pattern, name in self.routes:
            found = re.fullmatch(pattern, path)
            if found and known == method:
                is_data = path.startswith(("/datasets/", "/api/datasets/", "/api/resolve-cache/datasets/"))
                self._answer(name, {"kind": "dataset" if is_data else "model"} | found.groupdict())
                return
        self.hub.strangers.append(f"{self.command} {self.path}")
        self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self, name: str, found: dict[str, Any]) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        try:
            if name in ("preupload", "commit", "batch", "store"):
                self._check_fault({"store": "lfs"}.get(name, name), found["repo"], length)
            self.body = self.rfile.read(length)
            if name in ("create", "preupload", "commit", "batch"):
                self._check_token()
            getattr(self, name)(**found)
        except ConnectionAbortedError:
            self.close_connection = True
            self.connection.close()
        except _Refused as error:
            content = json.dumps({"error": str(error)} | ({"url": "-"} if error.status == 409 else {}))
            self._send(error.status, content.encode(), {"X-Error-Code": error.code, "X-Error-Message": str(error)})

    def _check_fault(self, part: str, repo: str, length: int) -> None:
        fault = self.hub.fault(repo, part)
        if fault == "drop":
            self.rfile.read(length // 2)
            raise ConnectionAbortedError
        if isinstance(fault, int):
            self.rfile.read(length)
            raise _Refused(fault, f"the Hub was told to answer {part} of {repo} by {fault}")

    def _check_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Refused(401, "Invalid username or password.")

    def _json(self, keys: set[str], content_type: str = "application/json") -> dict[str, Any]:
        if content_type not in (self.headers.get("Content-Type") or ""):
            raise _Refused(400, f"Content-Type is {self.headers.get('Content-Type')!r}")
        content = json.loads(self.body)
        if not set(content) <= keys:
            raise _Refused(400, f"unknown fields {set(content) - keys}")
        return content

    # Writing.

    def create(self, kind: str) -> None:
        asked = self._json({"name", "organization", "type", "private", "visibility"})
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        kind = asked.get("type", "model")
        self._check_fault("create", repo, 0)
        if self.hub.folder(repo, kind).exists():
            content = {"error": "You already created this model repo", "url": f"{self.hub.endpoint}/{repo}"}
            self._send(409, json.dumps(content).encode())
            return
        self.hub.folder(repo, kind).mkdir(parents=True)
        self._send_json({"url": f"{self.hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}", "name": repo})

    def validate(self, kind: str) -> None:
        errors = [{"message": error} for error in card_errors(self._json({"content", "repoType"})["content"])]
        self._send(400 if errors else 200, json.dumps({"errors": errors, "warnings": []}).encode())

    def preupload(self, kind: str, repo: str) -> None:
        files = []
        for file in self._json({"files", "gitIgnore"})["files"]:
            if not (isinstance(file["size"], int) and base64.b64decode(file["sample"], validate=True) is not None):
                raise _Refused(400, f"preupload of {file['path']}")
            mode = "lfs" if file["path"].endswith(self.hub.lfs) else "regular"
            known = self.hub.folder(repo, kind) / file["path"]
            oid = _oid(known.read_bytes(), mode == "lfs") if known.is_file() else None
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send_json({"files": files})

    def batch(self, kind: str, repo: str) -> None:
        asked = self._json({"operation", "transfers", "objects", "hash_algo", "ref"}, "application/vnd.git-lfs+json")
        if asked["operation"] != "upload" or asked["hash_algo"] != "sha256" or "basic" not in asked["transfers"]:
            raise _Refused(400, f"batch {asked}")
        objects = []
        for one in asked["objects"]:
            url = f"{self.hub.endpoint}/lfs/{repo}/{one['oid']}"
            actions = {} if one["oid"] in self.hub.objects else {"actions": {"upload": {"href": url}}}
            objects.append({"oid": one["oid"], "size": one["size"]} | actions)
        self._send_json({"transfer": "basic", "objects": objects})

    def store(self, kind: str, repo: str, oid: str) -> None:
        if sha256(self.body).hexdigest() != oid:
            raise _Refused(400, f"the content of {oid} is another's")
        self.hub.objects[oid] = self.body
        self._send(200, b"")

    def commit(self, kind: str, repo: str) -> None:
        if self.headers.get("Content-Type") != "application/x-ndjson":
            raise _Refused(400, f"Content-Type is {self.headers.get('Content-Type')!r}")
        if not self.hub.folder(repo, kind).exists():
            raise _Refused(404, "Repository not found", "RepoNotFound")
        header, *changes = [json.loads(line) for line in self.body.splitlines()]
        if header["key"] != "header" or not header["value"]["summary"]:
            raise _Refused(400, f"first line {header}")
        contents = [(change["value"]["path"], self._content(change)) for change in changes]
        for path, content in contents:
            if path == "README.md" and content and card_errors(content.decode()):
                raise _Refused(400, f"metadata: {card_errors(content.decode())}")
        # Only when all of it is known to be good: a commit is whole or not at all.
        for path, content in contents:
            self._put(self.hub.folder(repo, kind) / path, content)
        self.hub.commits.setdefault(repo, []).append(header["value"]["summary"])
        oid = self.hub.sha(repo)
        self._send_json({"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{oid}", "commitOid": oid})

    def _content(self, change: dict[str, Any]) -> bytes | None:
        value = change["value"]
        if ".." in Path(value["path"]).parts or value["path"].startswith("/"):
            raise _Refused(400, f"path {value['path']!r}")
        if change["key"] == "file" and value["encoding"] == "base64":
            return base64.b64decode(value["content"], validate=True)
        if change["key"] == "lfsFile" and value["algo"] == "sha256":
            if len(self.hub.objects.get(value["oid"], b"")) != value["size"]:
                raise _Refused(400, f"the LFS object of {value['path']} was not uploaded")
            return self.hub.objects[value["oid"]]
        if change["key"] in ("deletedFile", "deletedFolder"):
            return None
        raise _Refused(400, f"change {change['key']!r}")

    def _put(self, path: Path, content: bytes | None) -> None:
        if content is None:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    # Reading.

    def info(self, kind: str, repo: str) -> None:
        folder = self._folder(kind, repo)
        files = [{"rfilename": path} for path in _paths(folder, "", True) if (folder / path).is_file()]
        about = {"gated": "manual" if repo in self.hub.gated else False, "private": False, "tags": []}
        self._send_json({"id": repo, "sha": self.hub.sha(repo), "siblings": files} | about)

    def tree(self, kind: str, repo: str, under: str | None) -> None:
        folder, recursive = self._folder(kind, repo), "recursive=true" in self.path.lower()
        self._send_json([self._entry(folder, path) for path in _paths(folder, under or "", recursive)])

    def paths_info(self, kind: str, repo: str) -> None:
        folder, asked = self._folder(kind, repo), self.body.decode()
        self._send_json([self._entry(folder, path) for path in _paths(folder, "", True) if path in asked])

    def _folder(self, kind: str, repo: str) -> Path:
        if not self.hub.folder(repo, kind).is_dir():
            raise _Refused(404, "Repository not found", "RepoNotFound")
        return self.hub.folder(repo, kind)

    def _entry(self, folder: Path, path: str) -> dict[str, Any]:
        if (folder / path).is_dir():
            return {"type": "directory", "path": path, "oid": "0" * 40}
        content = (folder / path).read_bytes()
        return {"type": "file", "path": path, "size": len(content), "oid": _oid(content, False)}

    def file(self, kind: str, repo: str, file: str) -> None:
        if repo in self.hub.gated:
            raise _Refused(403, "This repository is gated", "GatedRepo")
        path = self._folder(kind, repo) / file
        if not path.is_file():
            raise _Refused(404, "Entry not found", "EntryNotFound")
        content = path.read_bytes()
        headers = {"ETag": f'"{_oid(content, file.endswith(self.hub.lfs))}"', "X-Repo-Commit": self.hub.sha(repo)}
        self._send(200, content, headers)

    def _send_json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        headers = {name: value for name, value in (headers or {}).items() if value}
        if wanted and status == 200:
            start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
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


def _oid(content: bytes, is_lfs: bool) -> str:
    """As git names it, or LFS."""
    return sha256(content).hexdigest() if is_lfs else sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _paths(folder: Path, under: str, recursive: bool) -> list[str]:
    found = (folder / under).glob("**/*" if recursive else "*")
    return sorted(path.relative_to(folder).as_posix() for path in found)


@contextmanager
def serve(root: Path, **options: Any) -> Iterator[Hub]:
    """Serve the repositories in a folder; `options` are the Hub's."""
    hub = Hub(root, **options)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def client_environment(hub: Hub, home: Path) -> dict[str, str]:
    """Variables of a process whose Hub this is; to be set before `huggingface_hub` is imported."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",  # or LFS files go to storage of another protocol
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
