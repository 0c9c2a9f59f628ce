"""A local stand-in for the Hub, speaking enough of its HTTP protocol for the unmodified client.

Repositories (private and gated ones too), commits of regular and LFS files, branches, tags and pull requests, paged
listings, and downloads in pieces. It answers errors as the Hub does: 401, 403, 404 with `X-Error-Code`, 409 for what
is there already, 412 for a commit on a head that has moved. Everything is in memory; models, datasets and Spaces share
one list of names. Use it with `HF_ENDPOINT` set to its address, a token, and `HF_HUB_DISABLE_XET=1`:

    with HubServer() as hub:
        subprocess.run(..., env={**os.environ, **hub.environment, "HF_TOKEN": TOKEN})

By hand: `python hub_server.py PORT`.
"""

import base64
import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

TOKEN = "hf_local_test_token"
USER = "user"
STRANGERS_TOKEN = "hf_token_of_a_stranger"
USERS = {f"Bearer {TOKEN}": USER, f"Bearer {STRANGERS_TOKEN}": "stranger"}
LFS_SUFFIXES = (".safetensors", ".bin", ".parquet")
LFS_BYTES = 5_000_000
PAGE_ENTRIES = 10


@dataclass
class Repository:
    """A repository: its commits in the order they came, each a hash and the complete files, and the names of some."""

    private: bool = False
    gated: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Puts a commit with these files on a branch and returns its hash."""
        content = json.dumps([len(self.commits), sorted((name, _sha256(data)) for name, data in files.items())])
        self.commits.append((hashlib.sha1(content.encode()).hexdigest(), files))
        self.branches[branch] = self.commits[-1][0]
        return self.commits[-1][0]

    def at(self, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """The commit of a branch, a tag or a hash."""
        named = self.branches | self.tags
        sha = named.get("main" if revision in (None, "HEAD") else str(revision), revision)
        return next((commit for commit in self.commits if commit[0] == sha), None)


class Request(NamedTuple):
    """What was asked and answered; status 0 where the server broke the connection."""

    method: str
    path: str
    status: int
    range: str | None


class HubServer:
    """The server, listening on a free port of this machine while it is used as a context manager.

    `breaks` holds patterns of "METHOD /path": each breaks the connection of the first request that matches it, half
    way through the body that comes or goes. `before` is told "METHOD /path" before it is answered. `part_bytes` makes
    large files be uploaded in parts of that size.
    """

    def __init__(self, port: int = 0) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.served: dict[str, bytes] = {}
        self.parts: dict[tuple[str, str], bytes] = {}
        self.part_bytes: int | None = None
        self.requests: list[Request] = []
        self.breaks: list[str] = []
        self.before: Callable[[str], None] = lambda request: None
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"hub": self}))

    @property
    def address(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def cdn_address(self) -> str:
        """Where large files lie: for the client another host, to which it must not send its token."""
        return f"http://localhost:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client process must be given, token apart."""
        return {"HF_ENDPOINT": self.address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}

    def asked(self, pattern: str) -> list[Request]:
        """Requests whose "METHOD /path" matches."""
        return [each for each in self.requests if re.fullmatch(pattern, f"{each.method} {each.path}")]

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_large(path: str, size: int) -> bool:
    return path.endswith(LFS_SUFFIXES) or size > LFS_BYTES


def _object_id(path: str, data: bytes) -> str:
    """What git would call the content, or LFS its large file: the client leaves out what has the same."""
    if _is_large(path, len(data)):
        return _sha256(data)
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(data), "oid": _object_id(path, data)}
    if _is_large(path, len(data)):
        entry["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 134}
    return entry


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


class _Handler(BaseHTTPRequestHandler):
    """One request. A route is a method and a pattern; its groups are the arguments of the function."""

    protocol_version = "HTTP/1.1"
    hub: HubServer
    body: bytes = b""
    query: dict[str, list[str]]
    breaks_off: bool = False

    def log_message(self, *arguments: object) -> None:
        """Keeps the test output quiet."""

    def handle_any(self) -> None:
        path, _, query = self.path.partition("?")
        self.query = parse_qs(query)
        self.breaks_off = self._is_to_break(f"{self.command} {path}")
        self.hub.before(f"{self.command} {path}")
        self.body = self._read_body() if self.command in ("POST", "PUT") else b""
        if self.breaks_off and self.body:
            self._hang_up()
        elif self._knows_the_token():
            self._answer_route(path)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def _answer_route(self, path: str) -> None:
        for pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                answer(self, *(group if group is None else unquote(group) for group in match.groups()))
                return
        self.answer(404, {"error": f"the stand-in does not know {self.command} {path}"})

    def _is_to_break(self, request: str) -> bool:
        found = next((pattern for pattern in self.hub.breaks if re.fullmatch(pattern, request)), None)
        if found is not None:
            self.hub.breaks.remove(found)
        return found is not None

    def _hang_up(self) -> None:
        self._log(0)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _log(self, status: int) -> None:
        path = self.path.split("?")[0]
        self.hub.requests.append(Request(self.command, path, status, self.headers.get("range")))

    def _read_body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            length = int(self.headers.get("content-length") or 0)
            return self.rfile.read(length // 2 if self.breaks_off else length)
        body = b""
        while True:
            size = int(self.rfile.readline().strip(), 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if not size or self.breaks_off:
                return body

    def answer(self, status: int, content: Any = b"", headers: dict[str, str] | None = None) -> None:
        headers = dict(headers or {})
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers.setdefault("Content-Type", "application/json")
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.breaks_off:
            self.wfile.write(content[: len(content) // 2])
            self._hang_up()
            return
        self._log(status)
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        """Answers an error as the Hub does: in the body, and for the client in headers."""
        named = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer(status, {"error": message}, {**named, **headers})

    @property
    def user(self) -> str | None:
        return USERS.get(self.headers.get("authorization", ""))

    def _knows_the_token(self) -> bool:
        known = "authorization" not in self.headers or self.user is not None
        if not known:
            self.refuse(401, "Invalid credentials in Authorization header")
        return known

    def repository(self, name: str, write: bool = False) -> Repository | None:
        """The repository, or None after an answer; a private one does not exist for strangers."""
        found, owner = self.hub.repositories.get(name), name.split("/")[0]
        if found is None or (found.private and self.user != owner):
            self.refuse(404 if self.user else 401, "Repository not found", "RepoNotFound")
        elif write and self.user != owner:
            self.refuse(403 if self.user else 401, f"you may not write to {name}")
        else:
            return found
        return None

    def files(self, name: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        """Hash and files of a revision, or None after an answer."""
        repository = self.repository(name)
        if repository is None:
            return None
        commit = repository.at(revision)
        if commit is None:
            self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def who_am_i(self) -> None:
        if self.user is None:
            self.refuse(401, "Invalid username or password.")
            return
        token = {"accessToken": {"role": "write"}}
        self.answer(200, {"name": self.user, "type": "user", "orgs": [], "auth": token})

    def validate_card(self) -> None:
        self.answer(200, {"errors": [], "warnings": []})

    def create(self) -> None:
        asked = json.loads(self.body)
        owner, kind = asked.get("organization") or self.user, asked.get("type") or "model"
        if self.user is None:
            self.refuse(401, "Invalid username or password.")
            return
        if owner != self.user:
            self.refuse(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
            return
        name = f"{owner}/{asked['name']}"
        url = f"{self.hub.address}/{'' if kind == 'model' else f'{kind}s/'}{name}"
        if name in self.hub.repositories:
            self.answer(409, {"error": f"You already created this {kind} repo", "url": url})
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private)
        self.hub.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.answer(200, {"url": url, "name": name, "id": name})

    def preupload(self, name: str, revision: str) -> None:
        commit = self.files(name, revision)
        if commit is None or self.repository(name, write="create_pr" not in self.query) is None:
            return
        modes = []
        for file in json.loads(self.body)["files"]:
            path, there = file["path"], commit[1].get(file["path"])
            mode = "lfs" if _is_large(path, file["size"]) else "regular"
            oid = None if there is None else _object_id(path, there)
            modes.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.answer(200, {"files": modes})

    def lfs_batch(self, name: str) -> None:
        if self.repository(name) is None:
            return
        objects = []
        for asked in json.loads(self.body)["objects"]:
            objects.append({"oid": asked["oid"], "size": asked["size"], "authenticated": True})
            if asked["oid"] not in self.hub.large_files:
                objects[-1]["actions"] = {"upload": self._upload_action(asked["oid"], asked["size"])}
        headers = {"Content-Type": "application/vnd.git-lfs+json"}
        self.answer(200, {"transfer": "basic", "objects": objects}, headers)

    def _upload_action(self, oid: str, size: int) -> dict[str, Any]:
        address, part = f"{self.hub.address}/lfs/{oid}", self.hub.part_bytes
        if part is None or size <= part:
            return {"href": address, "header": {}}
        count = -(-size // part)
        parts = {f"{number:05d}": f"{address}/part/{number}" for number in range(1, count + 1)}
        return {"href": f"{address}/complete", "header": {"chunk_size": str(part), **parts}}

    def lfs_upload(self, oid: str) -> None:
        self._keep(oid, self.body)

    def lfs_part(self, oid: str, number: str) -> None:
        self.hub.parts[oid, number] = self.body
        self.answer(200, b"", {"ETag": f'"{_sha256(self.body)}"'})

    def lfs_complete(self, oid: str) -> None:
        listed = json.loads(self.body)["parts"]
        parts = [(each["etag"], self.hub.parts[oid, str(each["partNumber"])]) for each in listed]
        if any(etag != f'"{_sha256(data)}"' for etag, data in parts):
            self.refuse(400, "a part is not the one that was uploaded")
            return
        self._keep(oid, b"".join(data for _, data in parts))

    def _keep(self, oid: str, data: bytes) -> None:
        if _sha256(data) != oid:
            self.refuse(400, "the content does not have this hash")
            return
        self.hub.large_files[oid] = data
        self.answer(200)

    def commit(self, name: str, revision: str) -> None:
        as_request = "create_pr" in self.query
        repository = self.repository(name, write=not as_request)
        if repository is None or (as_request and self.user is None):
            return
        operations = [json.loads(line) for line in self.body.splitlines()]
        head = repository.at(revision)
        parent = operations[0]["value"].get("parentCommit")
        if head is None or revision in repository.tags:
            self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        elif parent is not None and parent != head[0]:
            self.refuse(412, "A commit has happened since. Please refresh and try again.")
        else:
            files = self._changed(dict(head[1]), operations[1:])
            if files is not None:
                self._write(repository, name, files, revision, as_request)

    def _changed(self, files: dict[str, bytes], operations: list[dict[str, Any]]) -> dict[str, bytes] | None:
        for operation in operations:
            kind, value = operation["key"], operation["value"]
            path = value["path"]
            if kind == "file":
                files[path] = base64.b64decode(value["content"])
            elif kind == "lfsFile" and value["oid"] in self.hub.large_files:
                files[path] = self.hub.large_files[value["oid"]]
            elif kind == "lfsFile":
                self.refuse(400, f"the large file of {path} was not uploaded")
                return None
            else:
                gone = [each for each in files if each == path or each.startswith(path.rstrip("/") + "/")]
                if not gone:
                    self.refuse(404, "A file with this name doesn't exist", "EntryNotFound")
                    return None
                for each in gone:
                    del files[each]
        return files

    def _write(
        self, repository: Repository, name: str, files: dict[str, bytes], branch: str, as_request: bool
    ) -> None:
        number = 1 + sum(each.startswith("refs/pr/") for each in repository.branches)
        sha = repository.commit(files, f"refs/pr/{number}" if as_request else branch)
        address = f"{self.hub.address}/{name}"
        answer = {"commitUrl": f"{address}/commit/{sha}", "commitOid": sha, "success": True}
        self.answer(200, answer | ({"pullRequestUrl": f"{address}/discussions/{number}"} if as_request else {}))

    def create_branch(self, name: str, branch: str) -> None:
        repository = self.repository(name, write=True)
        if repository is None:
            return
        start = repository.at(json.loads(self.body or b"{}").get("startingPoint"))
        if branch in repository.branches:
            self.refuse(409, "Reference already exists")
        elif start is None:
            self.refuse(404, "Invalid rev id", "RevisionNotFound")
        else:
            repository.branches[branch] = start[0]
            self.answer(200, {})

    def create_tag(self, name: str, revision: str) -> None:
        repository = self.repository(name, write=True)
        commit = None if repository is None else self.files(name, revision)
        if repository is None or commit is None:
            return
        tag = json.loads(self.body)["tag"]
        if tag in repository.tags:
            self.refuse(409, "Tag reference exists already")
            return
        repository.tags[tag] = commit[0]
        self.answer(200, {})

    def refs(self, name: str) -> None:
        repository = self.repository(name)
        if repository is None:
            return
        requests = {each: sha for each, sha in repository.branches.items() if each.startswith("refs/pr/")}
        branches = {each: sha for each, sha in repository.branches.items() if each not in requests}
        listed = [("branches", branches), ("tags", repository.tags), ("pullRequests", requests), ("converts", {})]
        self.answer(
            200,
            {
                kind: [{"name": each, "ref": each, "targetCommit": sha} for each, sha in found.items()]
                for kind, found in listed
            },
        )

    def tree(self, name: str, revision: str, folder: str | None = None) -> None:
        commit = self.files(name, revision)
        if commit is None:
            return
        prefix, recursive = f"{folder}/" if folder else "", "true" in str(self.query.get("recursive", "")).lower()
        inside = {path: data for path, data in sorted(commit[1].items()) if path.startswith(prefix)}
        if folder and not inside:
            self.refuse(404, f"{folder} does not exist", "EntryNotFound")
            return
        deeper = {path: prefix + path.removeprefix(prefix).split("/")[0] for path in inside}
        folders = sorted({folder for path, folder in deeper.items() if folder != path})
        files = [_entry(path, data) for path, data in inside.items() if recursive or deeper[path] == path]
        self._answer_page([_folder(path) for path in folders] + files)

    def _answer_page(self, entries: list[dict[str, Any]]) -> None:
        first = int(self.query.get("cursor", ["0"])[0])
        headers = {}
        if first + PAGE_ENTRIES < len(entries):
            path = self.path.split("?")[0]
            given = "".join(f"{key}={value[0]}&" for key, value in self.query.items() if key != "cursor")
            address = f"{self.hub.address}{path}?{given}cursor={first + PAGE_ENTRIES}"
            headers["Link"] = f'<{address}>; rel="next"'
        self.answer(200, entries[first : first + PAGE_ENTRIES], headers)

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
            repository = self.hub.repositories[name]
            about = {"id": name, "modelId": name, "sha": commit[0], "private": repository.private}
            files = {"siblings": [{"rfilename": path} for path in sorted(commit[1])], "tags": []}
            gated = "manual" if repository.gated else False
            self.answer(200, {**about, **files, "gated": gated, "downloads": 0, "likes": 0})

    def resolve(self, name: str, revision: str, path: str) -> None:
        commit = self.files(name, revision)
        if commit is None:
            return
        sha, files = commit
        if self.hub.repositories[name].gated and self.user != name.split("/")[0]:
            reason = f"Access to model {name} is restricted and you are not in the authorized list."
            self.refuse(403 if self.user else 401, reason, "GatedRepo")
        elif path not in files:
            self.refuse(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": sha})
        elif _is_large(path, len(files[path])):
            oid, size = _sha256(files[path]), str(len(files[path]))
            self.hub.served[oid] = files[path]
            linked = {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": size, "X-Repo-Commit": sha}
            self.answer(302, b"", {"Location": f"{self.hub.cdn_address}/cdn/{oid}", **linked})
        else:
            self._send(files[path], {"ETag": f'"{_object_id(path, files[path])}"', "X-Repo-Commit": sha})

    def cdn(self, oid: str) -> None:
        if "authorization" in self.headers:
            self.refuse(400, "the address itself is the permission; a token does not belong here")
            return
        self._send(self.hub.served[oid], {"ETag": f'"{oid}"'})

    def _send(self, data: bytes, headers: dict[str, str]) -> None:
        headers["Accept-Ranges"] = "bytes"
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
        if not asked:
            self.answer(200, data, headers)
            return
        first, last = int(asked[1]), int(asked[2] or len(data) - 1)
        if first >= len(data):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self.answer(206, data[first : last + 1], headers)


NAME = r"([^/]+/[^/]+)"
KINDS = r"(?:datasets/|spaces/)?"
API = rf"/api/(?:models|datasets|spaces)/{NAME}"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    (r"/api/whoami-v2", _Handler.who_am_i),
    (r"/api/validate-yaml", _Handler.validate_card),
    (r"/api/repos/create", _Handler.create),
    (rf"{API}/preupload/([^/]+)", _Handler.preupload),
    (rf"/{KINDS}{NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (r"/lfs/([0-9a-f]+)", _Handler.lfs_upload),
    (r"/lfs/([0-9a-f]+)/part/(\d+)", _Handler.lfs_part),
    (r"/lfs/([0-9a-f]+)/complete", _Handler.lfs_complete),
    (rf"{API}/commit/([^/]+)", _Handler.commit),
    (rf"{API}/branch/([^/]+)", _Handler.create_branch),
    (rf"{API}/tag/([^/]+)", _Handler.create_tag),
    (rf"{API}/refs", _Handler.refs),
    (rf"{API}/tree/([^/]+)(?:/(.*))?", _Handler.tree),
    (rf"{API}/paths-info/([^/]+)", _Handler.paths_info),
    (rf"{API}/revision/([^/]+)", _Handler.information),
    (API, _Handler.information),
    (rf"/{KINDS}{NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
    (r"/cdn/([0-9a-f]+)", _Handler.cdn),
]


if __name__ == "__main__":
    with HubServer(int(sys.argv[1])) as running:
        print(f"listening on {running.address}, token {TOKEN}", flush=True)
        threading.Event().wait()
