"""What one timing process is asked to do; passed to it as JSON."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from results.parity import Parity
from results.record import ArtefactPrecision
from results.timing_record import Backend, Cache, Mode, ProtocolName, Subject

SESSION_FORMAT = "%Y%m%dT%H%M%SZ"
"""Of a session's name: the time, in UTC, when its command began."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Setup(_Strict):
    """How a fitted detector is to be run.

    Attributes:
        protocol: Which rules.
        mode: Of the protocol's.
        batch: Images per pass.
        precision: Of the networks.
        backend: What runs the module.
        fused: Run the method's fused form.
        device: ``cpu`` or ``cuda:N``.
        threads: CPU threads.
        cache: Whether the last cache is flushed before each pass.
    """

    protocol: ProtocolName
    mode: Mode
    batch: int
    precision: ArtefactPrecision
    backend: Backend
    fused: bool = False
    device: str
    threads: int
    cache: Cache = "warm"

    @property
    def plain(self) -> bool:
        """Whether it runs the plain module in float32, with which others are compared."""
        return (self.backend, self.precision, self.fused) == ("eager", "fp32", False)


class Trigger(_Strict):
    """How a production line triggers.

    Attributes:
        rate: Images per second.
        deadline_ms: From trigger to map.
        jitter: Largest shift of a trigger as a share of the time between two.
    """

    rate: float
    deadline_ms: float
    jitter: float = 0.0


class Extras(_Strict):
    """What is measured after the passes, as it costs time of its own.

    Attributes:
        stages: What the parts of a pass take.
        energy: What an image takes.
        after_idle: Seconds of rest, after which a first pass is timed; ``None`` for no such passes.
    """

    stages: bool = False
    energy: bool = False
    after_idle: float | None = None


class Job(_Strict):
    """One process of one row.

    Attributes:
        model: Folder of the cell that has kept the fitted detector.
        reference: File with the maps of the first images by the plain float32 module.
        subject: What the record says of the detector.
        setup: How it is to be run.
        line: Of a production line; ``None`` for the other modes.
        exactness: What the comparison with the plain module has found; ``None`` where there was none.
        not_compared: Why there was none; empty for the plain module itself.
        extras: What is measured besides.
        time_budget: Seconds of passes at most; ``None`` for no limit.
        process: Index of this process among those of its row.
        processes: How many there are to be.
        order: Position in the random order of this session's processes.
        session: What the processes of one command have in common, in ``SESSION_FORMAT``.
        command: The command line.
        out: Folder of the machine's file.
    """

    model: Path
    reference: Path
    subject: Subject
    setup: Setup
    line: Trigger | None = None
    exactness: Parity | None = None
    not_compared: str = ""
    extras: Extras = Extras()
    time_budget: float | None
    process: int
    processes: int
    order: int
    session: str
    command: str
    out: Path


class Comparison(_Strict):
    """A setup whose results are to be compared with those of the plain module, in a process that times nothing.

    Attributes:
        model: Folder of the cell that has kept the fitted detector.
        plain: File with the results of the plain module; it is written if it is not there.
        setup: How the detector is to be run.
        data_root: Folder of the collections, for the test images.
    """

    model: Path
    plain: Path
    setup: Setup
    data_root: Path


class Inspection(_Strict):
    """A fitted detector to be looked at before it is timed, in a process that times nothing.

    Attributes:
        model: Folder of the cell that has kept it.
        reference: File to write the maps of the first images to.
        device: Where.
        threads: CPU threads.
    """

    model: Path
    reference: Path
    device: str
    threads: int
