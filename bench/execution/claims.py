"""Who runs which cell of a run folder that several runs share.

A claim is a file that the file system lets one process create: ``CELL.1``. Taking a cell over from a run that is gone
is creating ``CELL.2``, which again one process is granted, and so on; the highest number holds. No claim is ever
removed and no lock is held, so a folder on a network file system will do. Clocks are not compared: a run that lives
counts up in a file of its own, and whoever waits for it measures with its own clock how long the count stands still.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import psutil

from results.beside import read_object
from results.errors import ResultError
from results.store import WORK_FOLDER

BEAT_INTERVAL = 5.0
"""Seconds between two counts of a living run."""
SILENCE = 60.0
"""Seconds without a count after which a run is taken for dead."""


@dataclass(frozen=True)
class Holder:
    """A run that claims cells.

    Attributes:
        id: Unique.
        host: Name of its host.
        system: Tells apart hosts of the same name, restarts of one, and containers on one: process numbers of two
            holders can be compared where it is the same.
        pid: Its process.
        begun: When the process started, in seconds of its host's clock.
        command: What it was called by.
        data: Scenario to the fingerprint of its files on this host.
        packages: Package to its version on this host, that of Python among them.
        beats: Counted up while it lives.
    """

    id: str
    host: str
    system: str
    pid: int
    begun: float
    command: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    beats: int = 0

    @classmethod
    def this_process(
        cls, command: str = "", data: Mapping[str, str] | None = None, packages: Mapping[str, str] | None = None
    ) -> "Holder":
        """A new holder of the process that calls."""
        begun = psutil.Process().create_time()
        own = (uuid.uuid4().hex, socket.gethostname(), _system(), os.getpid(), begun)
        return cls(*own, command, data or {}, packages or {})

    @property
    def label(self) -> str:
        """Host and process, for display."""
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class Claim:
    """The claim on one cell.

    Attributes:
        cell: Name of the cell's folder.
        number: Counted from 1 by those who have claimed the cell.
        holder: Whose claim it is.
        since: When it was made, by the clock of its host.
        interrupted: Why earlier claims have left no record, one line each.
        ended: Whether the holder is done with the cell.
    """

    cell: str
    number: int
    holder: str
    since: str
    interrupted: tuple[str, ...] = ()
    ended: bool = False

    @property
    def token(self) -> str:
        """Tells the claims of one cell apart."""
        return str(self.number)


class Claims:
    """The claims of one run in a run folder; while it is entered, the run counts as alive.

    Args:
        root: The run folder.
        holder: The run.
        silence: Seconds without a sign of life after which another run is taken for dead.
    """

    def __init__(self, root: Path, holder: Holder, silence: float = SILENCE) -> None:
        self._folder = root / WORK_FOLDER / "claims"
        self._holders = Holders(root, silence)
        self._holder = holder
        self._interval = min(BEAT_INTERVAL, silence / 4)
        self._stopped = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._unreadable: dict[Path, float] = {}
        self._silence = silence

    def __enter__(self) -> Self:
        with _written(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._holders.write(self._holder)
        self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._beating.join()
        self._holders.remove(self._holder)

    def others(self) -> list[Holder]:
        """The other runs that are alive, as far as can be told at once."""
        holders = self._holders.all()
        return [one for one in holders if one.id != self._holder.id and not self._holders.why_gone(one.id)]

    def take(self, cell: str) -> Claim | None:
        """Claim a cell, unless another run that is alive holds it.

        Args:
            cell: Name of the cell's folder.

        Raises:
            ResultError: The operating system refused, for example because the disk is full.
        """
        last = self.last(cell)
        interrupted: tuple[str, ...] = ()
        number = 1
        if last is not None:
            number = last.number + 1
            if not last.ended:
                why = self._why_free(last)
                if not why:
                    return None
                interrupted = (*last.interrupted, why)
        claim = Claim(cell, number, self._holder.id, datetime.now(UTC).isoformat(timespec="seconds"), interrupted)
        return claim if self._create(claim) else None

    def end(self, claim: Claim) -> None:
        """Say that the cell is done with: it has a record.

        A claim that cannot say so, on a full disk, ends with its run.
        """
        path = self.path(claim)
        with suppress(OSError):
            _replace(path, asdict(replace(claim, ended=True)))

    def path(self, claim: Claim) -> Path:
        """The file of a claim."""
        return self._folder / f"{claim.cell}.{claim.number}"

    def superseding(self, claim: Claim) -> Path:
        """The file of the claim that would take the cell over from this one."""
        return self._folder / f"{claim.cell}.{claim.number + 1}"

    def last(self, cell: str) -> Claim | None:
        """The claim that holds a cell, if it was ever claimed; one that cannot be read is of nobody known."""
        number = 0
        while (self._folder / f"{cell}.{number + 1}").exists():
            number += 1
        return _read_claim(self._folder / f"{cell}.{number}", cell, number) if number else None

    def holder(self, claim: Claim) -> Holder | None:
        """Whose claim it is, unless that run has ended in good order."""
        return self._holders.find(claim.holder)

    def _why_free(self, claim: Claim) -> str:
        """Why a claim that has not ended does not count any more; empty if it does."""
        if claim.holder:
            return self._holders.why_gone(claim.holder)
        # Half written or damaged: whoever it was had time enough to write it.
        first = self._unreadable.setdefault(self.path(claim), time.monotonic())
        return "a run whose claim cannot be read" if time.monotonic() - first > self._silence else ""

    def _create(self, claim: Claim) -> bool:
        """Create the file of a claim; return whether it was granted to this run."""
        path = self.path(claim)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            # A network file system may repeat a request whose answer was lost.
            return _read_claim(path, claim.cell, claim.number).holder == self._holder.id
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(asdict(claim)).encode())
        except OSError as error:
            with suppress(OSError):
                path.unlink()
            raise _unwritable(path, error) from error
        return True

    def _beat(self) -> None:
        beats = 0
        while not self._stopped.wait(self._interval):
            beats += 1
            with suppress(OSError):  # a full disk: the others judge by what they see
                self._holders.write(replace(self._holder, beats=beats))


class Holders:
    """The runs that have claimed cells of a run folder and have not ended in good order.

    Args:
        root: The run folder.
        silence: Seconds without a sign of life after which a run is taken for dead.
        clock: In seconds.
    """

    def __init__(self, root: Path, silence: float = SILENCE, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = root / WORK_FOLDER / "holders"
        self._silence = silence
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}

    def write(self, holder: Holder) -> None:
        """Make a holder known, or its count.

        Raises:
            OSError: The operating system refused.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        _replace(self._folder / f"{holder.id}.json", asdict(holder))

    def remove(self, holder: Holder) -> None:
        """Say that a holder has ended: what it has claimed and not recorded is free at once."""
        with suppress(OSError):
            (self._folder / f"{holder.id}.json").unlink()

    def all(self) -> list[Holder]:
        """All holders that have not ended in good order, whether they live or not."""
        found = (self.find(path.stem) for path in sorted(self._folder.glob("*.json")))
        return [holder for holder in found if holder is not None]

    def find(self, identity: str) -> Holder | None:
        """A holder, unless it has ended or what is known of it cannot be read."""
        document = read_object(self._folder / f"{identity}.json")
        try:
            return Holder(**document) if document is not None else None
        except TypeError:
            return None

    def why_gone(self, identity: str) -> str:
        """Why a holder's claims do not count any more; empty if they do, as far as is known yet."""
        holder = self.find(identity)
        if holder is None:
            return "a run that has ended"
        if holder.system == _system() and not _is_running(holder):
            return f"{holder.label}, which has died"
        now = self._clock()
        beats, since = self._seen.get(identity, (-1, now))
        if beats != holder.beats:
            self._seen[identity] = (holder.beats, now)
            return ""
        return f"{holder.label}, silent for {now - since:.0f} s" if now - since > self._silence else ""


def all_claims(root: Path) -> dict[str, Claim]:
    """The claim that holds each cell of a run folder that was ever claimed, by the name of its folder."""
    last: dict[str, tuple[int, Path]] = {}
    for path in (root / WORK_FOLDER / "claims").glob("*"):
        cell, _, number = path.name.rpartition(".")
        if cell and not cell.startswith(".") and number.isdecimal() and int(number) > last.get(cell, (0, path))[0]:
            last[cell] = (int(number), path)
    return {cell: _read_claim(path, cell, number) for cell, (number, path) in last.items()}


def _read_claim(path: Path, cell: str, number: int) -> Claim:
    document = read_object(path)
    try:
        claim = Claim(**{**document, "interrupted": tuple(document["interrupted"])}) if document else None
    except (KeyError, TypeError):
        claim = None
    whole = claim is not None and (claim.cell, claim.number) == (cell, number)
    return claim if claim is not None and whole else Claim(cell, number, "", "")


def _replace(path: Path, document: Mapping[str, object]) -> None:
    """Write a small file in one step; it need not survive a power cut, which ends whoever it is of, too."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_text(json.dumps(document))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _is_running(holder: Holder) -> bool:
    try:
        return abs(psutil.Process(holder.pid).create_time() - holder.begun) < 1
    except psutil.Error:
        return False


def _system() -> str:
    """The running kernel and the space of process numbers."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ResultError:
    return ResultError(
        f"cannot write {path}: {error.strerror or error}; make room or choose another folder with --out, then run the "
        "same command again"
    )
