"""How far a run folder is, from the folder alone, while runs go on in it on any hosts."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.execution.claims import Claim, Holder, Holders, all_claims
from bench.forecast import Forecast, device_name, observation_of
from bench.run_folder import PlannedCell, read_plan
from results.beside import read_object
from results.store import RECORD_FILE


@dataclass(frozen=True)
class RunningCell:
    """A cell that a run has claimed.

    Attributes:
        cell: Which.
        holder: Whose it is; ``None`` if that run has ended without recording it.
        seconds: Since when it is claimed, by this host's clock, which may differ from the holder's.
        gone: Why its holder counts as gone; empty if it lives, as far as can be told.
    """

    cell: PlannedCell
    holder: Holder | None
    seconds: float
    gone: str


@dataclass(frozen=True)
class RunStatus:
    """How far a run folder is.

    Attributes:
        planned: Cells that the last command wanted.
        done: How many of them have a record with metrics.
        failed: Of the others with a record: kind of failure to how many.
        running: Claimed and not recorded.
        waiting: How many nobody has claimed.
        holders: Runs that are alive, as far as can be told.
        left: Seconds until the end to expect; ``None`` while that is not known.
        others: Cells with a record that the last command did not want.
    """

    planned: int
    done: int
    failed: dict[str, int]
    running: tuple[RunningCell, ...]
    waiting: int
    holders: tuple[Holder, ...]
    left: float | None
    others: int

    @property
    def alive(self) -> list[RunningCell]:
        """The claimed cells whose runs live."""
        return [cell for cell in self.running if not cell.gone]


class StatusReader:
    """Reads how far a run folder is, time and again: each record once.

    Args:
        root: The run folder.
        silence: Seconds without a sign of life after which a run is taken for dead; a single reading cannot tell.
    """

    def __init__(self, root: Path, silence: float) -> None:
        self._root = root
        self._holders = Holders(root, silence)
        self._records: dict[str, dict[str, Any]] = {}

    def read(self) -> RunStatus:
        """How far it is now."""
        planned = {cell.folder: cell for cell in read_plan(self._root)}
        self._read_records()
        recorded = {name: self._records[name] for name in planned if name in self._records}
        claims = {name: claim for name, claim in all_claims(self._root).items() if name in planned}
        running = tuple(
            self._running(planned[name], claim)
            for name, claim in claims.items()
            if name not in recorded and not claim.ended
        )
        failures = Counter(
            (record.get("failure") or {}).get("kind", "unknown")
            for record in recorded.values()
            if record.get("status") == "failed"
        )
        alive = [one for one in running if not one.gone]
        left = [cell for name, cell in planned.items() if name not in recorded]
        return RunStatus(
            planned=len(planned),
            done=len(recorded) - failures.total(),
            failed=dict(failures),
            running=running,
            waiting=len(left) - len(running),
            holders=tuple(one for one in self._holders.all() if not self._holders.why_gone(one.id)),
            left=self._left(left, alive, list(recorded.values())),
            others=len(self._records) - len(recorded),
        )

    def _read_records(self) -> None:
        """Read the records that have come since last time; a failed one may have been replaced."""
        for path in self._root.glob(f"cells/*/{RECORD_FILE}"):
            known = self._records.get(path.parent.name)
            if known is None or known.get("status") == "failed":
                document = read_object(path)
                if document is not None:
                    document.pop("images", None)  # most of it, and nothing of it is needed
                    self._records[path.parent.name] = document

    def _running(self, cell: PlannedCell, claim: Claim) -> RunningCell:
        try:
            since = datetime.fromisoformat(claim.since).timestamp()
        except ValueError:
            since = time.time()
        seconds = max(0.0, datetime.now(UTC).timestamp() - since)
        holder = self._holders.find(claim.holder)
        return RunningCell(cell, holder, seconds, self._holders.why_gone(claim.holder))

    def _left(
        self, left: Sequence[PlannedCell], alive: Sequence[RunningCell], records: Sequence[dict[str, Any]]
    ) -> float | None:
        """Seconds until the last cell is done, if as many run at a time as now; ``None`` if some are not known."""
        if not left:
            return 0.0
        if not alive or not records:
            return None
        environment = records[-1]["environment"]
        device = device_name(environment.get("gpu"), environment["cpu"], environment["threads"])
        forecast = Forecast((one for record in records if (one := observation_of(record)) is not None), device)
        spent = {one.cell.key: one.seconds for one in alive}
        total = 0.0
        for cell in left:
            estimate = forecast.estimate(cell.task)
            if estimate is None:
                return None
            total += max(0.0, estimate.seconds - spent.get(cell.key, 0.0))
        return total / len(alive)
