"""The same as on the command line, from Python: nothing is printed unless a console is given.

Cells run in processes of their own, which import the script that calls :func:`run` anew: call it under
``if __name__ == "__main__":``.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from bench import evaluation
from bench import run as running
from bench.artefacts.exporting import Exported, chosen_cells, export_model
from bench.datasets import listing
from bench.errors import UsageError, unknown_name
from bench.models import load_detector
from bench.option_types import default_data_root
from bench.options import EvaluationOptions, ExportOptions, RunOptions, SubmissionOptions, TimingOptions, resolve
from bench.preparation import prepare
from bench.progress import make_display
from bench.run_folder import locked, new_folder
from bench.speed import time_detectors, time_run
from bench.submission import SubmittedScenario, prepare_submission, write_submission
from methods.common.precision import Precision
from results.record import Record
from results.timing_record import TimingRecord
from results.timing_store import read_timings

__all__ = ["evaluate", "export", "list_images", "load_detector", "run", "submit", "time"]


def run(
    methods: Sequence[str] | str,
    datasets: Sequence[str] | str = "all",
    *,
    data_root: Path | str | None = None,
    masks: Literal["nonzero", "half"] | None = None,
    seeds: Sequence[int] = (0,),
    out: Path | str | None = None,
    device: str = "auto",
    workers: int | None = None,
    threads: int | None = None,
    engine: Literal["local", "ray", "slurm"] = "local",
    ray_address: str | None = None,
    ray: Mapping[str, float] | str | None = None,
    train_scale: float = 1.0,
    set: Mapping[str, Mapping[str, object]] | None = None,
    preset: str | Sequence[str] = (),
    penalty_images: Path | str | None = None,
    weights_dir: Path | str | None = None,
    precision: Precision = "fp32",
    tf32: bool = False,
    hold_out: bool = False,
    cache: bool = True,
    keep_maps: bool = False,
    keep_models: bool = False,
    oracle: bool = False,
    force: bool = False,
    retry_failed: bool = False,
    cell_timeout: float | None = None,
    cell_memory: float | None = None,
    retry: int = 0,
    takeover_after: float = 60.0,
    strict_environment: bool = False,
    slurm: Sequence[str] | str = (),
    jobs: int | None = None,
    shard: str | None = None,
    time: bool = False,
    console: Console | None = None,
) -> list[Record]:
    """Fit, score and evaluate methods on data sets, as ``bench run`` does; what has run before is kept.

    Args:
        methods: Names of methods; ``bench methods`` lists them.
        datasets: ``all``, ``demo``, ``COLLECTION`` or ``COLLECTION/SCENARIO``.
        data_root: Folder of the collections; ``$BENCH_DATA``, else ``data``, when ``None``.
        masks: Which values of a mask mark a defect, where it holds several labels: all but 0, or the upper half.
        seeds: One cell each per method and scenario.
        out: Run folder; when ``None`` the newest one under ``runs`` with the same cells, else a new one.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        workers: Worker processes; one per GPU, on the CPU one per 8 cores, when ``None``. On a Ray cluster: cells at a
            time, as many as it has room for when ``None``.
        threads: CPU threads of each worker; the cores shared out when ``None``.
        engine: Where cells run: in processes of this machine, as tasks of a Ray cluster, or in jobs of Slurm.
        ray_address: A running Ray cluster, ``HOST:PORT`` or ``auto``; ``$RAY_ADDRESS``, else one is started here, when
            ``None``.
        ray: What each cell takes of a Ray cluster, such as ``{"num_gpus": 0.5, "num_cpus": 4, "memory": 8e9}``.
        train_scale: Multiplies every training length; stamped on all results.
        set: Method to option to value.
        preset: Named option set of the methods; of several, each method takes the first that it has.
        penalty_images: Folder of photographs for the pretraining penalty, or ``none``.
        weights_dir: Where downloaded weights are kept.
        precision: Of the networks of fitted detectors; stamped on all results.
        tf32: Let a GPU round the factors of float32 products to TF32; stamped on all results.
        hold_out: Hold out validation images of every method, to choose thresholds on; stamped where it changes a fit.
        cache: Keep decoded images on disk.
        keep_maps: Keep the anomaly maps beside each record.
        keep_models: Keep the fitted detector beside each record, for :func:`load_detector`.
        oracle: Also evaluate every epoch's state on the test images, kept apart from all results.
        force: Run in a precision that the CPU only emulates.
        retry_failed: Run the cells again that failed before.
        cell_timeout: Seconds after which a cell is given up and fails; none when ``None``.
        cell_memory: GB of main memory beyond which a cell is given up and fails; none when ``None``.
        retry: How often a cell is run again whose process or node has died.
        takeover_after: Seconds without a sign of life after which another run on the folder is taken for dead.
        strict_environment: Refuse a run folder with records of other versions of packages.
        slurm: Options of ``sbatch``, such as ``partition=gpu,gpus_per_node=1,time=04:00:00``.
        jobs: Jobs to submit; one per cell, at most 20, when ``None``.
        shard: ``i/n``: only the i-th of n parts of the cells.
        time: Then time one fitted detector of each method; the timings lie in the run folder.
        console: Where to show the progress; nowhere when ``None``.

    Returns:
        The records of all cells, those that have run before included. A cell that failed has one too, whose
        ``failure`` says why.

    Raises:
        BenchError: The arguments make no sense, or the run folder cannot be used.
        MethodError: A method does not take its options, or no method has its weights.
        ResultError: The run folder cannot be read or written.
    """
    given = {name: value for name, value in locals().items() if name != "console"}
    options = resolve(RunOptions, given, "bench.api.run")
    options = dataclasses.replace(options, keep_models=options.keep_models or time)
    prepared = prepare(options)
    # A live display would take over what the caller prints meanwhile.
    console = console or Console(quiet=True, force_terminal=False)
    if prepared.due:
        display = make_display(console, len(prepared.due))
        with closing(running.execute(prepared, _call("run", given, run))) as events, display:
            for event in events:
                display.show(event)
    records = prepared.current_records()
    if time:
        time_run(options, console)
    return records


def evaluate(
    maps: Path | str | None = None,
    *,
    model: Path | str | None = None,
    name: str | None = None,
    source: str | None = None,
    seed: int = 0,
    datasets: Sequence[str] | str | None = None,
    data_root: Path | str | None = None,
    masks: Literal["nonzero", "half"] | None = None,
    out: Path | str | None = None,
    upsample: bool = False,
    with_models: bool = False,
    definitions: Literal["all"] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Record]:
    """Evaluate anomaly maps that anything has computed, or those of a run, as ``bench evaluate`` does.

    Args:
        maps: Folder with ``<scenario>/test/<defect>/<stem>.tiff`` (or ``.npy``, ``.npz``), or a run folder whose cells
            kept their maps or their models.
        model: Instead of maps: a detector that ``bench export`` has written.
        name: What tables call the method that made the maps; not for a run.
        source: Its paper or product.
        seed: Tells several trainings of one method apart.
        datasets: ``COLLECTION`` or ``COLLECTION/SCENARIO``; all that the maps are of when ``None``.
        data_root: Folder of the collections; ``$BENCH_DATA``, else ``data``, when ``None``.
        masks: Which values of a mask mark a defect, where it holds several labels: all but 0, or the upper half.
        out: Run folder to write to; a new one under ``runs`` when ``None``.
        upsample: The maps are of the whole image at the network's resolution.
        with_models: Predict again with the models that a run kept, instead of reading its maps.
        definitions: ``all``: keep the values under other definitions of AU-PRO too.
        say: Is told, in one line each, what the user should know, such as files that belong to no image.

    Returns:
        A record per scenario, or per cell of the run. One that failed says why.

    Raises:
        UsageError: The folder holds no maps that fit any data set, or the arguments make no sense.
        ResultError: A run folder cannot be read or written.
    """
    given = {argument: value for argument, value in locals().items() if argument != "say"}
    options = resolve(EvaluationOptions, given, "bench.api.evaluate")
    prepared = evaluation.prepare(options, _call("evaluate", given, evaluate), say)
    with locked(prepared.store.root):
        return list(evaluation.execute(prepared))


def list_images(
    rows: Sequence[Mapping[str, object]], collection: str, *, data_root: Path | str | None = None
) -> list[str]:
    """Make a collection of images that lie anywhere, by a table of them; no file is copied.

    Args:
        rows: Per image ``path``, ``split`` (``train``, ``validation``, ``test``) and ``label`` (``normal``,
            ``anomalous``), and where it has them ``mask``, ``defect``, ``condition`` and ``scenario``. Relative paths
            are relative to the working directory.
        collection: What it is called from then on, as by :func:`run`; a table that an earlier call has written under
            this name is replaced.
        data_root: Folder of the collections; ``$BENCH_DATA``, else ``data``, when ``None``.

    Returns:
        The scenarios, as ``COLLECTION/SCENARIO``.

    Raises:
        BenchError: A row makes no sense, or the collection's folder holds other files.
    """
    root = default_data_root() if data_root is None else Path(data_root)
    return [f"{collection}/{name}" for name in listing.list_images(rows, collection, root)]


def submit(
    run: Path | str,
    *,
    out: Path | str | None = None,
    method: str | None = None,
    seed: int | None = None,
    thresholds: str = "mean+3sd",
    incomplete: bool = False,
    data_root: Path | str | None = None,
    device: str = "auto",
) -> list[SubmittedScenario]:
    """Write the official submission of MVTec AD 2 from a run that has kept its models, as ``bench submit`` does.

    Args:
        run: Run folder.
        out: Folder to write, new or empty; ``submission`` in the run folder when ``None``.
        method: Which of several methods in the run.
        seed: Which of several seeds in the run.
        thresholds: Rule whose thresholds the thresholded images are made with; ``none`` for no such images.
        incomplete: Write what there is, though the owners' site will not take it.
        data_root: Folder of the collections; ``$BENCH_DATA``, else ``data``, when ``None``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        What was written of each scenario.

    Raises:
        BenchError: The run cannot be submitted, or the folder not be written; says what to do.
        MethodError: A kept model cannot be used.
        ResultError: The run folder cannot be read.
    """
    options = resolve(SubmissionOptions, dict(locals()), "bench.api.submit")
    return list(write_submission(prepare_submission(options)))


def time(
    run: Path | str | None = None,
    *,
    methods: Sequence[str] | str = (),
    console: Console | None = None,
    **options: object,
) -> list[TimingRecord]:
    """Time fitted detectors, as ``bench time`` does: those that a run has kept, or methods, which are fitted first.

    Args:
        run: Run folder.
        methods: Instead of it: names of methods.
        console: Where to show what is timed; nowhere when ``None``.
        options: Any of :class:`bench.options.TimingOptions`, such as ``backend=["eager", "openvino"]``.

    Returns:
        A record per process that was timed; of a row that cannot be timed there is none, and the console says why.

    Raises:
        BenchError: The arguments make no sense.
        MethodError: A method cannot be fitted or restored.
        ResultError: A file cannot be read or written.
    """
    given = {"run": run, "methods": methods or None, **_known(options, TimingOptions)}
    resolved = resolve(TimingOptions, given, "bench.api.time")
    # Without a folder of the user's, this one: the records have to be found again.
    out = resolved.out or resolved.run or new_folder()
    before = {record.samples for record in read_timings([out]).records} if out.exists() else set()
    time_detectors(dataclasses.replace(resolved, out=out), console or Console(quiet=True, force_terminal=False))
    return [record for record in read_timings([out]).records if record.samples not in before]


def export(model: Path | str, **options: object) -> Exported:
    """Write a kept model for another runtime, compared with the module at once, as ``bench export`` does.

    Args:
        model: Folder of a cell, or of a run with one model.
        options: Any of :class:`bench.options.ExportOptions`, such as ``format="openvino"``.

    Returns:
        The files, none if decisions flip and that was not allowed, and what the artefact says of itself.

    Raises:
        BenchError: The arguments make no sense, or the test images are not at hand.
        MethodError: The artefact gives scores that are no numbers.
        ResultError: A file cannot be written.
    """
    given = {"models": [Path(model)], **_known(options, ExportOptions)}
    resolved = resolve(ExportOptions, given, "bench.api.export")
    (cell, *others) = chosen_cells(resolved)
    if others:
        raise UsageError(f"{model} keeps {len(others) + 1} models: name the folder of one cell")
    return export_model(cell, resolved)


def _known(given: Mapping[str, object], options: type[Any]) -> Mapping[str, object]:
    names = [option.name for option in dataclasses.fields(options)]
    for name in given:
        if name not in names:
            raise unknown_name("option", name, names)
    return given


def _call(name: str, given: Mapping[str, object], function: Callable[..., Any]) -> str:
    """The call as a record names it: what differs from the defaults."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    arguments = [f"{argument}={value!r}" for argument, value in given.items() if value != defaults[argument]]
    return f"bench.api.{name}({', '.join(arguments)})"
