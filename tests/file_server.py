"""A web server for the tests of downloads, which can misbehave as real ones do."""

import hashlib
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves contents from memory.

    Attributes:
        files: By path without the leading slash.
        ranges: The ``Range`` header of each request so far, ``None`` where there was none.
        knows_ranges: Sends the part of a file that is asked for; else always all of it.
        tags: Sends an ``ETag``, and obeys ``If-Range``.
        cut_after: Breaks off each answer after so many bytes.
        announced: A length to announce instead of the real one.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.ranges: list[str | None] = []
        self.knows_ranges = self.tags = True
        self.cut_after: int | None = None
        self.announced: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that has heard enough hangs up."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        content = self.server.files.get(self.path.strip("/"))
        if content is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        same = self.headers["If-Range"] in (None, tag)
        start = 0
        if asked and self.server.knows_ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.server.tags:
            self.send_header("ETag", tag)
        length = len(content) - start if self.server.announced is None else self.server.announced
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.cut_after])

    def log_message(self, *_: object) -> None:
        pass
