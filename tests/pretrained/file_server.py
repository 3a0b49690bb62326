"""A web server on this machine that behaves well or badly, for tests of downloads."""

import contextlib
import dataclasses
import hashlib
import http.server
import threading
from collections.abc import Iterator


@dataclasses.dataclass
class Behaviour:
    """What the server does; tests change it while it runs.

    Attributes:
      content: of every file.
      ranges: whether it gives parts of a file.
      tag: whether it tells the version of the file.
      cut_after: bytes of an answer after which it hangs up; one answer each.
      stall_after: bytes of every answer after which it sends nothing more.
      statuses: to answer with instead; one answer each.
      status: to answer with always.
      declared: length that it claims, where not the true one.
      content_type: the Content-Type of the file, if it states one.
      chunked: whether it sends one chunk, without a Content-Length.
      requests: the Range header of every request.
    """

    content: bytes = b""
    ranges: bool = True
    tag: bool = True
    cut_after: list[int] = dataclasses.field(default_factory=list)
    stall_after: int | None = None
    statuses: list[int] = dataclasses.field(default_factory=list)
    status: int | None = None
    declared: int | None = None
    content_type: str | None = None
    chunked: bool = False
    requests: list[str | None] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Gives the URL of a server."""
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            behaviour.requests.append(wanted)
            status = behaviour.statuses.pop(0) if behaviour.statuses else behaviour.status
            if status:
                self.send_error(status)
                return
            self._send_file(int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0)

        def _send_file(self, start):
            content = behaviour.content
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            changed = self.headers.get("If-Range") not in (None, tag)
            if not behaviour.ranges or changed:
                start = 0
            elif start >= len(content) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            if behaviour.tag:
                self.send_header("ETag", tag)
            if behaviour.content_type:
                self.send_header("Content-Type", behaviour.content_type)
            rest = content[start:]
            if behaviour.chunked:
                self.send_header("Transfer-Encoding", "chunked")
                rest = b"%x\r\n%s\r\n0\r\n\r\n" % (len(rest), rest)
            else:
                self.send_header("Content-Length", str(behaviour.declared or len(rest)))
            self.end_headers()
            self._send(rest)

        def _send(self, content):
            if behaviour.cut_after:
                content = content[: behaviour.cut_after.pop(0)]
            if behaviour.stall_after is not None:
                self.wfile.write(content[: behaviour.stall_after])
                over.wait(20)
                return
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
