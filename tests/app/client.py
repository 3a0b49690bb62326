"""A client of the app's HTTP interface, as docs/guides/app.md tells it; standard library alone."""

import itertools
import json
import urllib.error
import urllib.request
import uuid


class RefusedError(Exception):
    """The server said why not."""


def upload(address: str, content: bytes, name: str = "image.png", timeout: float = 60) -> str:
    """Returns where the server keeps an uploaded file."""
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return _json(address, "upload", body, kind, timeout)[0]


def segment(address: str, path: str, model: str, timeout: float = 60) -> list:
    """Returns overlay, mask, legend, areas and times."""
    return call(address, "segment", path, model, timeout=timeout)


def call(address: str, name: str, path: str, *values: str, timeout: float = 60) -> list:
    """Returns the outputs of an endpoint for an uploaded file and other inputs."""
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [image, *values]}).encode()
    kind = {"Content-Type": "application/json"}
    event = _json(address, f"call/{name}", body, kind, timeout)["event_id"]
    with urllib.request.urlopen(_url(address, f"call/{name}/{event}"), timeout=timeout) as answer:
        lines = answer.read().decode().splitlines()
    for kind, data in itertools.pairwise(lines):
        if kind == "event: complete":
            return json.loads(data.removeprefix("data: "))
        if kind == "event: error":
            raise RefusedError(data.removeprefix("data: "))
    raise RefusedError(f"no answer: {lines}")


def fetch(address: str, path: str, timeout: float = 60) -> bytes:
    """Returns a file of an answer."""
    with urllib.request.urlopen(_url(address, f"file={path}"), timeout=timeout) as answer:
        return answer.read()


def _url(address: str, path: str) -> str:
    return f"{address.rstrip('/')}/gradio_api/{path}"


def _json(address: str, path: str, body: bytes, headers: dict, timeout: float):
    request = urllib.request.Request(_url(address, path), body, headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            reason = error.read().decode(errors="replace")
        raise RefusedError(f"{error.code} {reason}") from error
