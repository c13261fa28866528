"""Files from public servers: resumed where they were cut off, checked, and whole or not there."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requests import Response

Progress = Callable[[int, int | None], None]
"""Is told how many bytes of the file are there, and of how many if the server says."""

_ATTEMPTS = 5
_SECONDS = 30
_CHUNK = 2**16
"""Bytes written at a time; of the last, if the connection breaks in it, nothing is kept."""
_SHA256_DIGITS = 64


class DownloadError(OSError):
    """A file cannot be had from a server; the message is the cause in one line."""


class _CutOffError(DownloadError):
    """The connection broke: what has arrived is good."""


@dataclass(frozen=True)
class Download:
    """A file on a public server.

    Attributes:
        url: Where it is.
        sha256: Hexadecimal digits that the file's SHA-256 begins with: torchvision's file names carry the first
            eight; empty where nobody says.
    """

    url: str
    sha256: str = ""

    @property
    def file_name(self) -> str:
        """Last part of the URL, without a query."""
        return re.split(r"[?#]", self.url)[0].rsplit("/", 1)[-1]


def download_file(download: Download, target: Path, progress: Progress | None = None) -> str:
    """Fetch a file, or what an earlier call that was cut off has left to fetch.

    What has arrived lies beside ``target``, as ``<name>.part``, until the file is whole and has the digest that it
    should; only then does ``target`` exist. A part is continued if the server confirms that the file is still the
    same one (``If-Range``), or the digest will tell; a server that sends the file from its beginning is let do so.
    One process at a time may fetch to one ``target``.

    Args:
        download: What to fetch.
        target: Where it belongs; its folder exists.
        progress: Called after each piece.

    Returns:
        The file's SHA-256, 64 hexadecimal digits.

    Raises:
        DownloadError: The server cannot be reached, does not have the file, breaks off, or sends another one than it
            should; or the disk has no room. What has arrived is kept for the next call, unless it is the wrong file.
        OSError: It cannot be written.
    """
    part = _Part(target, download)
    for attempts_left in reversed(range(_ATTEMPTS)):
        before = part.bytes
        try:
            if not part.whole:
                _receive(part, progress)
            break
        except _CutOffError:
            if not attempts_left or part.bytes <= before:
                raise
    digest = part.sha256()
    if not digest.startswith(download.sha256):
        part.discard()
        raise DownloadError(f"the server sent a file with SHA-256 {digest}")
    part.finish()
    return digest


class _Part:
    """The bytes of a file that have arrived, and which version of it they are of."""

    def __init__(self, target: Path, download: Download) -> None:
        self.download = download
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._about = target.with_name(f"{target.name}.part.json")

    @property
    def bytes(self) -> int:
        """How many have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def whole(self) -> bool:
        """All have arrived, as far as the server has said how many there are."""
        return self.bytes > 0 and self.bytes == self._known().get("bytes")

    def request_rest(self) -> dict[str, str]:
        """Headers that ask for what is missing; for everything where the versions could not be told apart."""
        validator = self._known().get("validator")
        if not self.bytes or not (validator or len(self.download.sha256) == _SHA256_DIGITS):
            return {}
        return {"Range": f"bytes={self.bytes}-"} | ({"If-Range": validator} if validator else {})

    def start(self, validator: str | None, total: int | None) -> None:
        """Begin a new version with no bytes."""
        self.path.write_bytes(b"")
        self._about.write_text(json.dumps({"url": self.download.url, "validator": validator, "bytes": total}))

    def sha256(self) -> str:
        """Digest of what has arrived."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def finish(self) -> None:
        """Give the whole file its name."""
        self.path.replace(self._target)
        self._about.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete what has arrived."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def _known(self) -> dict[str, Any]:
        """What was noted of the version when it began; nothing of another URL or where the note is damaged."""
        try:
            about = json.loads(self._about.read_text())
        except (OSError, ValueError):
            return {}
        return about if isinstance(about, dict) and about.get("url") == self.download.url else {}


def _receive(part: _Part, progress: Progress | None) -> None:
    """Ask for what is missing and append it."""
    import requests

    headers = {"Accept-Encoding": "identity"} | part.request_rest()
    try:
        with requests.get(part.download.url, headers=headers, stream=True, timeout=_SECONDS) as response:
            if response.status_code == 416 and "Range" in headers:  # of another version: there is no such rest
                part.discard()
                return _receive(part, progress)
            response.raise_for_status()
            total = _begin(part, response)
            with part.path.open("ab") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    if progress is not None:
                        progress(file.tell(), total)
    except requests.HTTPError as error:
        raise DownloadError(f"the server answered {error.response.status_code} {error.response.reason}") from error
    except requests.RequestException as error:
        raise _CutOffError(f"download failed ({type(error).__name__})") from error


def _begin(part: _Part, response: "Response") -> int | None:
    """Make ready for what a server sends: the rest of a file, or all of it.

    Returns:
        The size of the whole file in bytes, ``None`` if the server does not say.
    """
    if response.status_code == 206:
        answered = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if answered is None or int(answered[1]) != part.bytes:
            part.discard()
            raise DownloadError("the server sent another part of the file than the one asked for")
        length = answered[2]
    else:
        length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    check_room((total or 0) - part.bytes, part.path.parent)
    if response.status_code != 206:
        part.start(_validator(response), total)
    return total


def _validator(response: "Response") -> str | None:
    """What tells one version of the file from the next; a weak tag does not, byte for byte."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def check_room(needed: int, folder: Path) -> None:
    """Make sure that so many bytes fit on the disk of a folder.

    Raises:
        DownloadError: They do not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(f"{needed:,} bytes are to come, but there is room for {free:,} in {folder}")
