"""A local stand-in for the Hub, speaking enough of its HTTP protocol for the unmodified client.

Creates repositories, takes commits with regular and LFS files, and serves them to `snapshot_download` and
`from_pretrained`, private repositories included. Everything is in memory. Use it with `HF_ENDPOINT` set to its
address, `HF_TOKEN` to `TOKEN`, and `HF_HUB_DISABLE_XET=1`:

    with HubServer() as hub:
        subprocess.run(..., env={**os.environ, **hub.environment})

By hand: `python hub_server.py PORT`.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_local_test_token"
USER = "user"
LFS_SUFFIXES = (".safetensors", ".bin", ".parquet")
LFS_BYTES = 5_000_000


@dataclass
class Repository:
    """A repository: its commits, oldest first, each a hash and the complete files."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes]) -> str:
        """Appends a commit with these files and returns its hash."""
        content = json.dumps([len(self.commits), sorted((name, _sha256(data)) for name, data in files.items())])
        self.commits.append((hashlib.sha1(content.encode()).hexdigest(), files))
        return self.commits[-1][0]

    def at(self, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """The commit of a branch name or hash."""
        if revision in (None, "main", "HEAD"):
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


class HubServer:
    """The server, listening on a free port of this machine while it is used as a context manager."""

    def __init__(self, port: int = 0) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"hub": self}))

    @property
    def address(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client process must be given, token apart."""
        return {"HF_ENDPOINT": self.address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """One request. A route is a method and a pattern; its groups are the arguments of the function."""

    protocol_version = "HTTP/1.1"
    hub: HubServer
    body: bytes = b""

    def log_message(self, *arguments: object) -> None:
        """Keeps the test output quiet."""

    def handle_any(self) -> None:
        path = self.path.split("?")[0]
        self.hub.requests.append((self.command, path))
        self.body = self._read_body() if self.command in ("POST", "PUT") else b""
        for pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                answer(self, *match.groups())
                return
        self.answer(404, {"error": f"the stand-in does not know {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def _read_body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while True:
            size = int(self.rfile.readline().strip(), 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return body

    def answer(self, status: int, content: Any = b"", headers: dict[str, str] | None = None) -> None:
        headers = dict(headers or {})
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers.setdefault("Content-Type", "application/json")
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def authorised(self) -> bool:
        return self.headers.get("authorization", "") == f"Bearer {TOKEN}"

    def refused(self) -> bool:
        """Answers 401 to whoever comes without the token."""
        if not self.authorised:
            self.answer(401, {"error": "Invalid credentials in Authorization header"})
        return not self.authorised

    def repository(self, name: str) -> Repository | None:
        """The repository, or None after an answer; a private one does not exist for strangers."""
        found = self.hub.repositories.get(name)
        if found is not None and (self.authorised or not found.private):
            return found
        status = 404 if self.authorised else 401
        self.answer(status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return None

    def files(self, name: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """Hash and files of a revision, or None after an answer."""
        repository = self.repository(name)
        if repository is None:
            return None
        commit = repository.at(revision)
        if commit is None:
            self.answer(404, {"error": "Invalid revision"}, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def who_am_i(self) -> None:
        if not self.refused():
            token = {"accessToken": {"role": "write"}}
            self.answer(200, {"name": USER, "type": "user", "orgs": [], "auth": token})

    def validate_card(self) -> None:
        self.answer(200, {"errors": [], "warnings": []})

    def create(self) -> None:
        if self.refused():
            return
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        url = f"{self.hub.address}/{'datasets/' if asked.get('type') == 'dataset' else ''}{name}"
        if name in self.hub.repositories:
            self.answer(409, {"error": "You already created this model repo", "url": url})
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private)
        self.hub.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.answer(200, {"url": url, "name": name, "id": name})

    def preupload(self, name: str, revision: str) -> None:
        if self.repository(name) is None:
            return
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) or file["size"] > LFS_BYTES else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self.answer(200, {"files": modes})

    def lfs_batch(self, name: str) -> None:
        objects = []
        for asked in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.address}/lfs/{asked['oid']}", "header": {}}}
            known = asked["oid"] in self.hub.large_files
            objects.append({"oid": asked["oid"], "size": asked["size"], "authenticated": True})
            objects[-1] |= {} if known else {"actions": upload}
        headers = {"Content-Type": "application/vnd.git-lfs+json"}
        self.answer(200, {"transfer": "basic", "objects": objects}, headers)

    def lfs_upload(self, oid: str) -> None:
        if _sha256(self.body) != oid:
            self.answer(400, {"error": "the content does not have this hash"})
            return
        self.hub.large_files[oid] = self.body
        self.answer(200)

    def commit(self, name: str, revision: str) -> None:
        repository = self.repository(name)
        if repository is None or self.refused():
            return
        files = dict(repository.commits[-1][1])
        for operation in map(json.loads, self.body.splitlines()):
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
            elif operation["key"] == "deletedFile":
                files.pop(value["path"], None)
        sha = repository.commit(files)
        self.answer(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def tree(self, name: str, revision: str, folder: str | None = None) -> None:
        commit = self.files(name, revision)
        if commit is None:
            return
        prefix, recursive = f"{folder}/" if folder else "", "recursive=true" in self.path.lower()
        inside = {path: data for path, data in sorted(commit[1].items()) if path.startswith(prefix)}
        deeper = {path: prefix + path.removeprefix(prefix).split("/")[0] for path in inside}
        folders = sorted({folder for path, folder in deeper.items() if folder != path})
        files = [_entry(path, data) for path, data in inside.items() if recursive or deeper[path] == path]
        self.answer(200, [_folder(path) for path in folders] + files)

    def paths_info(self, name: str, revision: str) -> None:
        commit = self.files(name, revision)
        if commit is not None:
            asked = json.loads(self.body)["paths"]
            files = [_entry(path, commit[1][path]) for path in asked if path in commit[1]]
            folders = [path for path in asked if any(file.startswith(f"{path}/") for file in commit[1])]
            self.answer(200, files + [_folder(path) for path in folders])

    def information(self, name: str, revision: str | None = None) -> None:
        commit = self.files(name, revision)
        if commit is not None:
            about = {"id": name, "modelId": name, "sha": commit[0], "private": self.hub.repositories[name].private}
            files = {"siblings": [{"rfilename": path} for path in sorted(commit[1])], "tags": []}
            self.answer(200, {**about, **files, "downloads": 0, "likes": 0})

    def resolve(self, name: str, revision: str, path: str) -> None:
        commit = self.files(name, revision)
        if commit is None:
            return
        sha, files = commit
        if path not in files:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        data = files[path]
        headers = {"ETag": f'"{_sha256(data)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
        if not asked:
            self.answer(200, data, headers)
            return
        first, last = int(asked[1]), int(asked[2] or len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self.answer(206, data[first : last + 1], headers)


NAME = r"([^/]+/[^/]+)"
API = rf"/api/(?:models|datasets)/{NAME}"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    (r"/api/whoami-v2", _Handler.who_am_i),
    (r"/api/validate-yaml", _Handler.validate_card),
    (r"/api/repos/create", _Handler.create),
    (rf"{API}/preupload/(.+)", _Handler.preupload),
    (rf"/(?:datasets/)?{NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (r"/lfs/([0-9a-f]+)", _Handler.lfs_upload),
    (rf"{API}/commit/(.+)", _Handler.commit),
    (rf"{API}/tree/([^/]+)(?:/(.*))?", _Handler.tree),
    (rf"{API}/paths-info/([^/]+)", _Handler.paths_info),
    (rf"{API}/revision/([^/]+)", _Handler.information),
    (API, _Handler.information),
    (rf"/(?:datasets/)?{NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
]


if __name__ == "__main__":
    with HubServer(int(sys.argv[1])) as running:
        print(f"listening on {running.address}, token {TOKEN}", flush=True)
        threading.Event().wait()
