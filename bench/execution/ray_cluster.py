"""Cells as tasks of a Ray cluster, one that runs or one started here; what comes of them travels back through Ray."""

import os
import signal
import socket
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from bench.errors import UsageError
from bench.execution.events import Assignment, Ended, Event, Interrupted, Progressed, Started, Waiting
from bench.execution.local import CellLimits
from bench.execution.protocol import CellSource, CellTask
from bench.execution.ray_node import Again, Begun, Luggage, Parcel, run_here
from bench.execution.supply import LOOK_AGAIN
from bench.machine.devices import CORES_PER_WORKER, Slot, usable_cores
from bench.options import RunOptions
from results.record import Failure

RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""What a task is told to need, and what a node calls it."""
_GRACE = 5.0
"""Seconds that a cancelled task has to end its processes and to remove its files."""
_PATIENCE = 10.0
"""Seconds within which a cluster must answer."""
_QUIET = {"log_to_driver": False, "configure_logging": False}

Nodes = Sequence[Mapping[str, float]]
"""What each node has in all, by its name of the resource."""


def check_ray(options: RunOptions, device: str) -> None:
    """Make sure, without a cluster, that options of Ray make sense.

    Args:
        options: Of the run.
        device: ``cpu`` or ``cuda``: what the cells are planned for.

    Raises:
        UsageError: Ray is not installed, or an option does not go with another.
    """
    if options.engine != "ray":
        for flag, value in (("--ray-address", options.ray_address), ("--ray", options.ray)):
            if value:
                raise UsageError(f"{flag} says where cells run that --engine ray hands out: pass that, too")
        return
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise UsageError("--engine ray needs the package ray\n  pip install 'anomaly-bench[ray]'") from error
    address = _address(options.ray_address) or ""
    if address.startswith("ray://"):
        raise UsageError(
            f"--ray-address does not take {address!r}: Ray's client cannot tell how far tasks are\n"
            "  Call the command on a machine that belongs to the cluster, with --ray-address auto or HOST:PORT."
        )
    if ":" in options.device:
        raise UsageError(f"--engine ray chooses the GPU itself, not {options.device}\n  Allowed: auto, cpu, cuda")
    gpus = options.ray.get("num_gpus")
    if device == "cpu" and gpus:
        raise UsageError(f"--ray num_gpus={gpus:g} is of no use to cells on the CPU\n  Pass --device cuda.")
    if device == "cuda" and gpus == 0:
        raise UsageError("--ray num_gpus=0 leaves cells that are to run on a GPU without one\n  Pass --device cpu.")
    for name in ("num_cpus", "num_gpus"):
        number = options.ray.get(name, 1)
        if number > 1 and number != int(number):
            raise UsageError(f"--ray {name}={number:g}: Ray takes a whole number, or a part of one")
    if options.ray.get("num_cpus") == 0:
        raise UsageError("--ray num_cpus=0: a cell computes on the CPU, too\n  Pass 1 or more.")


class RayEngine:
    """Runs each cell as a Ray task; an :class:`bench.execution.protocol.Engine`.

    Ray itself tries nothing again: whether a cell whose node was lost is run once more decides who hands it out.

    Args:
        address: A running cluster, ``HOST:PORT`` or ``auto``; ``$RAY_ADDRESS``, else one is started, when ``None``.
        needs: What a cell takes, by Ray's name of the argument; what is left out is chosen by the nodes.
        device: ``cpu`` or ``cuda``.
        task: What is done with a cell.
        limits: Of a cell.
        retries: How often a node runs a cell again whose process has died.
        most: How many cells run at a time; as many as there is room for when ``None``.
    """

    def __init__(
        self,
        address: str | None,
        needs: Mapping[str, float],
        device: str,
        task: CellTask,
        limits: CellLimits,
        retries: int = 0,
        most: int | None = None,
    ) -> None:
        self._address = _address(address)
        self._given = needs
        self._device = device
        self._task = task
        self._limits = limits
        self._retries = retries
        self._most = most

    def run(self, supply: CellSource) -> Generator[Event]:
        """Run cells until all are recorded, and yield what happens to them, each end as soon as it is there.

        When the iterator is closed or an exception passes through, all tasks are cancelled.

        Raises:
            UsageError: The cluster cannot be reached, or no node has what a cell needs.
            ResultError: A record or a claim cannot be written, for example because the disk is full.
        """
        with connected(self._address):
            import ray

            needs = choose_needs(_nodes(), self._device, self._given)
            if not room(_nodes(), needs):
                raise _no_room(_nodes(), needs)
            asked = {name: need for name, need in needs.items() if need}
            remote = ray.remote(run_here).options(max_retries=0, num_returns="streaming", **asked)
            tasks: dict[Any, _Task] = {}
            try:
                while supply.is_open or tasks:
                    if supply.is_open:
                        self._hand_out(supply, tasks, remote, needs)
                        yield from supply.recorded_elsewhere()
                    if not tasks:
                        if supply.held_elsewhere:
                            yield Waiting(supply.held_elsewhere)
                        time.sleep(LOOK_AGAIN if supply.is_open else 0)
                        continue
                    ready, _ = ray.wait(list(tasks), timeout=LOOK_AGAIN)
                    for messages in ready:
                        yield from self._hear(tasks[messages], messages, supply)
                        if tasks[messages].done:
                            del tasks[messages]
            finally:
                _cancel(list(tasks))

    def _hand_out(self, supply: CellSource, tasks: "dict[Any, _Task]", remote: Any, needs: Mapping[str, float]) -> None:
        """Submit as many cells as the cluster has room for, not more: others may run what is not claimed."""
        # Where the last node has gone, one cell waits in Ray for another.
        free = max(1, min(room(_nodes(), needs), self._most or 10**6)) - len(tasks)
        for _ in range(free):
            assignment = supply.take()
            if assignment is None:
                return
            taken = {task.slot.index for task in tasks.values()}
            index = next(index for index in count() if index not in taken)
            device = "cpu" if self._device == "cpu" else "cuda:0"  # the first of those that Ray shows the task
            slot = Slot(index, device, max(1, int(needs["num_cpus"])))
            luggage = Luggage.packed(assignment, self._keeping(assignment), slot, self._limits, self._retries)
            tasks[remote.remote(luggage)] = _Task(assignment, slot)

    def _keeping(self, assignment: Assignment) -> CellTask:
        """The task of a cell; its model is kept where it was kept before, which the node cannot see."""
        from bench.models import has_model
        from results.store import RunStore

        before = has_model(RunStore(self._task.root).cell_directory(assignment.cell.id))
        return replace(self._task, keep_models=self._task.keep_models or before)

    def _hear(self, task: "_Task", messages: Any, supply: CellSource) -> Iterator[Event]:
        """What a task says next, or what has become of it."""
        slot, assignment = task.slot, task.assignment
        match message := _next(messages, task.node):
            case Begun(node):
                task.node = node
                yield Started(slot, assignment.cell, node)
            case Again(reason):
                yield Interrupted(slot, assignment.cell, reason)
            case Parcel(files):
                task.done = True
                record = self._task.record_files(assignment, files)
                supply.ended(assignment)
                yield Ended(slot, assignment.cell, record)
            case Failure(kind="killed") if supply.retry(assignment, message):
                task.done = True
                yield Interrupted(slot, assignment.cell, message.reason)
            case Failure():
                task.done = True
                # It is recorded here, where there need not be a GPU.
                record = self._task.record_failure(assignment, Slot(slot.index, "cpu", slot.threads), message)
                supply.ended(assignment)
                yield Ended(slot, assignment.cell, record)
            case progress:
                yield Progressed(slot, assignment.cell, progress)


@dataclass(eq=False)
class _Task:
    """The run's side of a task."""

    assignment: Assignment
    slot: Slot
    node: str = ""
    done: bool = False


def choose_needs(nodes: Nodes, device: str, given: Mapping[str, float]) -> dict[str, float]:
    """What a cell takes: what is given, else one GPU if it is to run on one, and its share of a node's CPUs.

    Args:
        nodes: Of the cluster.
        device: ``cpu`` or ``cuda``.
        given: By Ray's name of the argument.

    Returns:
        The same with ``num_cpus`` and ``num_gpus``.
    """
    gpus = given.get("num_gpus", float(device == "cuda"))
    shares = [
        max(1, cpus // (room([node], {"num_gpus": gpus}) if gpus else max(1, cpus // CORES_PER_WORKER)))
        for node in nodes
        if (cpus := int(node.get("CPU", 0))) and node.get("GPU", 0) >= gpus
    ]
    # The smallest share, so that every node takes part.
    return {"num_cpus": min(shares, default=1), "num_gpus": gpus, **given}


def room(nodes: Nodes, needs: Mapping[str, float]) -> int:
    """How many cells the nodes have room for, if nobody else uses them; ``needs`` by Ray's name of the argument."""
    fits = [(RESOURCES[name], need) for name, need in needs.items() if need]
    # A ten thousandth is Ray's own resolution: three times a third is one.
    return sum(min(int(node.get(name, 0) / need + 1e-4) for name, need in fits) for node in nodes)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect this process with a cluster, or start one; what was started here is ended with the block.

    Args:
        address: ``HOST:PORT`` or ``auto``; ``None`` starts a cluster of this machine.

    Raises:
        UsageError: The cluster cannot be reached.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    with _own_sigterm():
        try:
            if address is None:
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                ray.init("local", num_cpus=usable_cores(), include_dashboard=False, **_QUIET)
            else:
                _knock(address)
                ray.init(address, **_QUIET)
        except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UsageError(
                f"the Ray cluster {f'at {address}' if address else 'of this machine'} cannot be used: {first}\n"
                "  ray status --address HOST:PORT says whether it runs; ray start --head starts one; without "
                "--ray-address a cluster of this machine is started."
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """See whether anything listens at ``HOST:PORT``: Ray itself tries for minutes.

    Raises:
        OSError: Nothing does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what this process does when it is asked to end: Ray would replace it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _address(given: str | None) -> str | None:
    return given or os.environ.get("RAY_ADDRESS") or None


def _nodes() -> Nodes:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _no_room(nodes: Nodes, needs: Mapping[str, float]) -> UsageError:
    asked = ", ".join(f"{name}={need:g}" for name, need in needs.items() if need)
    have = "; ".join(
        ", ".join(f"{name}={node.get(RESOURCES[name], 0):g}" for name in sorted({*needs, "num_gpus"})) for node in nodes
    )
    return UsageError(
        f"no node of the Ray cluster has what a cell needs: {asked}\n"
        f"  Its nodes have: {have or 'none is alive'}\n"
        "  Ask for less with --ray, such as --ray num_gpus=0.5,num_cpus=2, or run on the CPU with --device cpu."
    )


def _next(messages: Any, node: str) -> Any:
    """The next message of a task; a failure if there is none as the task has ended without its parcel."""
    import ray
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

    from bench.recording import failure_of

    on = f"node {node}" if node else "a node"
    try:
        return ray.get(next(messages))
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        failure = failure_of(cause)
        return failure.model_copy(
            update={
                "reason": f"{failure.reason} (on node {node or error.ip})",
                "log_tail": f"{error}\n  The node needs the same versions of Python, Ray and anomaly-bench as here.",
            }
        )
    except OutOfMemoryError as error:
        return Failure(kind="memory", reason=f"{on} ran out of memory, and Ray ended the cell", log_tail=str(error))
    except (RayError, StopIteration) as error:
        return Failure(kind="killed", reason=f"{on} was lost ({type(error).__name__})", log_tail=str(error))


def _cancel(messages: Sequence[Any]) -> None:
    """Cancel tasks: first as Ctrl-C would, so that they remove their files; by force those that do not listen."""
    import ray

    if not messages:
        return
    for one in messages:
        with suppress(ray.exceptions.RayError):
            ray.cancel(one)
    _, deaf = ray.wait([one.completed() for one in messages], num_returns=len(messages), timeout=_GRACE)
    for one in messages:
        if one.completed() in deaf:
            with suppress(ray.exceptions.RayError):
                ray.cancel(one, force=True)
