"""A server on this machine with those endpoints of the Hugging Face Hub that huggingface_hub calls.

Uploads use Git LFS: the newer Xet protocol, which HF_HUB_DISABLE_XET=1 turns off, is not spoken.
"""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator

MAIN = "main"
# The Hub stores binary files apart from the commits, as Git LFS does.
LARGE = (".safetensors", ".png")
REPOSITORY = r"([\w.-]+/[\w.-]+)"
ROUTES = {
    ("POST", r"/api/validate-yaml"): "validate",
    ("POST", r"/api/repos/create"): "create",
    ("GET", rf"/api/models/{REPOSITORY}(?:/revision/([^/]+))?"): "info",
    ("POST", rf"/api/models/{REPOSITORY}/branch/([^/]+)"): "branch",
    ("POST", rf"/api/models/{REPOSITORY}/preupload/([^/]+)"): "preupload",
    ("POST", rf"/{REPOSITORY}\.git/info/lfs/objects/batch"): "batch",
    ("PUT", r"/lfs/(\w+)"): "store",
    ("POST", rf"/api/models/{REPOSITORY}/commit/([^/]+)"): "commit",
    ("GET", rf"/api/models/{REPOSITORY}/tree/([^/]+)"): "tree",
    ("HEAD", rf"/{REPOSITORY}/resolve/([^/]+)/(.+)"): "resolve",
    ("GET", rf"/{REPOSITORY}/resolve/([^/]+)/(.+)"): "resolve",
}


@dataclasses.dataclass
class Repository:
    """A repository: files by commit, and the commit of each branch."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    branches: dict[str, str] = dataclasses.field(default_factory=dict)
    messages: list[str] = dataclasses.field(default_factory=list)

    def add(self, branch: str, files: dict[str, bytes], message: str) -> str:
        """Adds a commit and returns its name."""
        name = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        self.messages.append(message)
        return name

    def find(self, revision: str) -> str | None:
        """Returns the commit of a branch, or of its own name."""
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclasses.dataclass
class Hub:
    """State of the server; tests change it while it runs.

    Attributes:
      token: token that may write; other tokens are invalid.
      repositories: repositories by name.
      stored: large files by SHA-256.
      answers: HTTP statuses to answer with instead, by the name of a route.
      faults: faults of the metadata of every model card.
      cut: number of bytes after which a download is cut off; None: never.
      requests: routes of all requests.
      url: address of the server.
    """

    token: str = "hf_good"
    repositories: dict[str, Repository] = dataclasses.field(default_factory=dict)
    stored: dict[str, bytes] = dataclasses.field(default_factory=dict)
    answers: dict[str, int] = dataclasses.field(default_factory=dict)
    faults: list[str] = dataclasses.field(default_factory=list)
    cut: int | None = None
    requests: list[str] = dataclasses.field(default_factory=list)
    url: str = ""


@contextlib.contextmanager
def serving_hub() -> Iterator[Hub]:
    """Yields a running server without repositories."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers a request with the method that its route names."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        """Prints nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        self.body = self._chunks() if chunked else self.rfile.read(length)
        path = urllib.parse.urlsplit(self.path).path
        for (method, pattern), name in ROUTES.items():
            found = re.fullmatch(pattern, path)
            if found and method == self.command:
                self.hub.requests.append(name)
                if name in self.hub.answers:
                    self._json({"error": "refused"}, self.hub.answers[name])
                    return
                groups = (each and urllib.parse.unquote(each) for each in found.groups())
                getattr(self, f"_{name}")(*groups)
                return
        self.hub.requests.append(f"{self.command} {path}")
        self._json({"error": "no such route"}, 404)

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _json(self, value: object, status: int = 200, **headers: str) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _refused(self) -> bool:
        """Answers a request to write without a valid token."""
        if not self._may_write:
            message = "Invalid credentials in Authorization header"
            self._json({"error": message}, 401, X_Error_Message=message)
        return not self._may_write

    def _readable(self, name: str) -> Repository | None:
        """Returns a repository, or answers as for one that does not exist."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._may_write):
            self._json({"error": "Repository not found"}, 401, X_Error_Code="RepoNotFound")
            return None
        return repository

    def _revision(self, repository: Repository, revision: str) -> str | None:
        commit = repository.find(revision)
        if commit is None:
            self._json({"error": "no revision"}, 404, X_Error_Code="RevisionNotFound")
        return commit

    def _validate(self) -> None:
        errors = [{"message": fault} for fault in self.hub.faults]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _create(self) -> None:
        if self._refused():
            return
        values = json.loads(self.body)
        name = f"{values['organization']}/{values['name']}"
        if name in self.hub.repositories:
            self._json({"error": "it exists", "url": f"{self.hub.url}/{name}"}, 409)
            return
        private = values.get("visibility") == "private" or values.get("private") is True
        self.hub.repositories[name] = Repository(private)
        self.hub.repositories[name].add(MAIN, {}, "initial commit")
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _info(self, name: str, revision: str | None) -> None:
        repository = self._readable(name)
        commit = repository and self._revision(repository, revision or MAIN)
        if repository and commit:
            files = [{"rfilename": each} for each in repository.commits[commit]]
            self._json({
                "id": name, "modelId": name, "sha": commit, "private": repository.private,
                "siblings": files, "tags": [], "downloads": 0, "likes": 0,
            })  # fmt: skip

    def _branch(self, name: str, branch: str) -> None:
        if self._refused():
            return
        repository = self.hub.repositories[name]
        if branch in repository.branches:
            self._json({"error": "Reference already exists"}, 409)
            return
        repository.branches[branch] = repository.branches[MAIN]
        self._json({}, 201)

    def _preupload(self, name: str, revision: str) -> None:
        if self._refused():
            return
        self._json({
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self.body)["files"]
            ]
        })  # fmt: skip

    def _batch(self, name: str) -> None:
        if self._refused():
            return
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}},
            }
            for one in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.stored[oid] = self.body
        self._json({})

    def _commit(self, name: str, branch: str) -> None:
        if self._refused():
            return
        repository, message = self.hub.repositories[name], ""
        files = dict(repository.commits[repository.branches[branch]])
        for line in self.body.splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "header":
                message = value["summary"]
            elif row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        commit = repository.add(branch, files, message)
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _tree(self, name: str, revision: str) -> None:
        repository = self._readable(name)
        commit = repository and self._revision(repository, revision)
        if not (repository and commit):
            return
        rows = []
        for path, content in repository.commits[commit].items():
            row = {"type": "file", "path": path, "size": len(content), "oid": _git_name(content)}
            if path.endswith(LARGE):
                oid = hashlib.sha256(content).hexdigest()
                row["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
            rows.append(row)
        self._json(rows)

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._readable(name)
        commit = repository and self._revision(repository, revision)
        if not (repository and commit):
            return
        content = repository.commits[commit].get(path)
        if content is None:
            self._json(
                {"error": "no entry"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit
            )
            return
        large = path.endswith(LARGE)
        tag = hashlib.sha256(content).hexdigest() if large else _git_name(content)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{tag}"')
        if large:
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Linked-Etag", f'"{tag}"')
        self.end_headers()
        if self.command == "GET":
            cut = self.hub.cut if large else None
            self.wfile.write(content[:cut])
            if cut is not None:
                self.close_connection = True
                self.connection.shutdown(2)


def _git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
