"""``bench time``: fit what is to be timed where that is not done yet, time it, and show the rows."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.errors import UsageError
from bench.machine.devices import choose_slots, usable_cores
from bench.machine.environment import command_line, cpu_name
from bench.options import RunOptions, TimingOptions
from bench.preparation import prepare
from bench.progress import make_display
from bench.run import execute, terminable
from bench.run_folder import new_folder, update_report
from bench.summary import FAILED, OK
from bench.timing.backends import PRECISIONS, check_backend
from bench.timing.job import Extras, Setup, Trigger
from bench.timing.protocols import timing_protocol
from bench.timing.session import KeptModel, Refused, Row, Timed, models_of_run, time_rows
from methods.registry import chosen_methods, load_method
from results.store import RunStore
from results.timing_store import TIMING_FOLDER

INTERRUPTED = 130
CPU_BUDGET = 60.0
"""Seconds of passes per row on a CPU, where a thousand passes take a quarter of an hour."""


def time_detectors(options: TimingOptions, console: Console) -> int:
    """Time detectors and show what came of it.

    Returns:
        The exit code of ``bench time``.

    Raises:
        BenchError: The options make no sense.
        MethodError: A method cannot be fitted or restored.
        ResultError: A file cannot be read or written.
    """
    device = _device(options)
    if device == "cpu" and options.require_gpu:
        console.print("no CUDA device: nothing was timed (--require-gpu)")
        return FAILED
    _check(options, device)
    root = options.run or options.out or new_folder()
    failed = 0
    if options.run is None:
        failed = _fit(options, root, device, console)
    models = models_of_run(root)
    if options.methods:  # an earlier command may have fitted others in the same folder
        models = [model for model in models if model.description.method in chosen_methods(options.methods)]
    rows = list(plan_rows(models, options, device))
    out = (options.out or root) / TIMING_FOLDER
    introduce(rows, options, device, console)
    try:
        with terminable():  # the process that times is ended with this one
            failed += _time(rows, options, device, out, console)
    except KeyboardInterrupt:
        console.print("[bold]interrupted:[/] what has been timed is recorded", highlight=False)
        return INTERRUPTED
    _print_tables(out, console)
    folder = update_report(RunStore(root))
    console.print(f"\nreport: {escape(str(folder / 'report.md'))}", highlight=False, soft_wrap=True)
    return FAILED if failed else OK


def time_run(options: RunOptions, console: Console) -> int:
    """Time one detector of each method of a run that has kept its models, by the defaults of ``bench time``.

    Returns:
        The exit code of ``bench time``.
    """
    root = prepare(options).store.root
    return time_detectors(TimingOptions(run=root, device=options.device), console)


def plan_rows(models: Sequence[KeptModel], options: TimingOptions, device: str) -> Iterator[Row]:
    """The rows that the options ask for: every model in every backend, precision that this has, and batch size."""
    protocol = timing_protocol(options.protocol).on(device)
    threads = options.threads or usable_cores()
    trigger = None
    if options.line_rate is not None and options.deadline_ms is not None:
        trigger = Trigger(rate=options.line_rate, deadline_ms=options.deadline_ms, jitter=options.jitter)
    for model, backend, precision in product(models, options.backend, options.precision or (protocol.precision,)):
        if precision not in PRECISIONS[backend]:
            continue
        for batch in (1,) if trigger else options.batch or protocol.batches:
            setup = Setup(
                protocol=options.protocol,
                mode="line" if trigger else options.mode or protocol.mode,
                batch=batch,
                precision=precision,
                backend=backend,
                fused=options.fused,
                device=device,
                threads=threads,
                cache=options.cache,
            )
            yield Row(model, setup, trigger)


def introduce(rows: Sequence[Row], options: TimingOptions, device: str, console: Console) -> None:
    """Say what is timed, and what a machine without a GPU leaves blank."""
    threads = rows[0].setup.threads if rows else usable_cores()
    if device == "cpu":
        why = "No CUDA device" if options.device == "auto" else "The CPU was asked for"
        console.print(
            f'{why}: GPU columns are blank ("–"), not estimated. Measured instead: CPU {escape(cpu_name())}, '
            f"{threads} threads, host clock, no transfer. These are not comparable with numbers of a GPU.",
            highlight=False,
        )
    console.print(f"{len(rows)} rows, protocol {options.protocol}", highlight=False)
    if any(not row.setup.plain for row in rows):
        console.print("rows of other precisions and backends are compared with the plain module first", highlight=False)


def _device(options: TimingOptions) -> str:
    """One device: the first GPU where several are."""
    return choose_slots(options.device, None)[0].device


def _check(options: TimingOptions, device: str) -> None:
    if (options.run is None) == (not options.methods):
        raise UsageError("name a run folder whose models are timed, or methods with --methods: one of them")
    if (options.line_rate is None) != (options.deadline_ms is None):
        raise UsageError("a production line has a rate and a deadline: pass --line-rate and --deadline-ms together")
    if options.run is not None and options.input_size is not None:
        raise UsageError("--input-size is a matter of the fit: name methods with --methods, not a run folder")
    _check_mode(options, device)
    if options.cache == "cold" and (options.line_rate is not None or options.stages or options.energy):
        raise UsageError(
            "--cache cold is about passes that are timed one by one, and not about lines, stages or energy\n"
            "  Leave out --line-rate, --stages and --energy, or pass --cache warm."
        )
    for backend in options.backend:
        if options.stages and backend != "eager":
            raise UsageError(f"--stages looks into the module, which --backend {backend} replaces: use eager")
        if device == "cpu" and backend in ("cudagraph", "tensorrt"):
            raise UsageError(f"--backend {backend} needs a GPU\n  On a CPU: eager, compile, onnxruntime, openvino.")
        check_backend(backend, options.precision or (timing_protocol(options.protocol).on(device).precision,))


def _check_mode(options: TimingOptions, device: str) -> None:
    mode = options.mode
    if mode is None:
        return
    if options.line_rate is not None:
        raise UsageError(f"--line-rate is a mode of its own, and --mode {mode} another: pass one of them")
    if mode == "request":
        return
    if options.protocol == "mvtec_ad2":
        raise UsageError(f"the protocol mvtec_ad2 is its owners', of requests: --mode {mode} goes with paper, rigorous")
    if options.stages:
        raise UsageError(f"--mode {mode} goes without --stages, which are of requests: leave out one of them")
    if mode == "stream" and (options.cache == "cold" or options.after_idle is not None):
        raise UsageError("passes of a stream do not begin one by one: --mode stream goes without cold caches and rests")
    if mode == "device" and device == "cpu":
        raise UsageError("--mode device replays a CUDA graph and needs a GPU\n  On a CPU: request and stream.")
    others = [backend for backend in options.backend if backend not in ("eager", "compile", "cudagraph")]
    if mode == "device" and others:
        raise UsageError(
            f"--mode device captures what PyTorch runs, and not --backend {others[0]}\n"
            "  Allowed: eager, compile, cudagraph."
        )


def _fit(options: TimingOptions, root: Path, device: str, console: Console) -> int:
    """Fit the methods in the run folder, as far as that is not done; return how many cannot be fitted."""
    console.print(f"run folder: {escape(str(root))}", highlight=False, soft_wrap=True)
    records = []
    for wanted in _runs(options, root, device):
        prepared = prepare(wanted)
        scenarios = sorted({cell.scenario.id for cell in prepared.plan.cells})
        if len(scenarios) > 1:
            raise UsageError(
                f"--datasets names {len(scenarios)} scenarios; detectors are timed as fitted on one\n"
                f"  Name one of {', '.join(scenarios)}."
            )
        if prepared.due:
            display = make_display(console, len(prepared.due))
            with closing(execute(prepared, command_line())) as events, display:
                for event in events:
                    display.show(event)
        records += prepared.current_records()
    failed = [record for record in records if record.failure is not None]
    for record in failed:
        reason = record.failure.reason if record.failure else ""
        console.print(f"[red]{escape(record.title)} cannot be fitted:[/] {escape(reason)}", soft_wrap=True)
    return len(failed)


def _runs(options: TimingOptions, root: Path, device: str) -> Iterator[RunOptions]:
    """What is to be fitted: the methods as they are, or those that take any image size in each that is asked for."""
    plain = RunOptions(
        methods=options.methods,
        datasets=options.datasets,
        data_root=options.data_root,
        out=root,
        device=device,
        train_scale=options.train_scale,
        set=options.set,
        preset=options.preset,
        weights_dir=options.weights_dir,
        keep_models=True,
    )
    if options.input_size is None:
        yield plain
        return
    names = [name for name in chosen_methods(options.methods) if _takes_any_size(name)]
    if not names:
        raise UsageError(f"none of {', '.join(options.methods)} has the option image_size, which --input-size sets")
    for size in options.input_size:
        sized = {name: {**options.set.get(name, {}), "image_size": size} for name in names}
        yield dataclasses.replace(plain, methods=tuple(names), set=sized)


def _takes_any_size(method: str) -> bool:
    return any(field.name == "image_size" for field in dataclasses.fields(load_method(method).Config))


def _time(rows: Sequence[Row], options: TimingOptions, device: str, out: Path, console: Console) -> int:
    """Time the rows, print a line per process, and return how many rows could not be timed."""
    processes = options.processes or timing_protocol(options.protocol).processes
    budget = options.time_budget if options.time_budget is not None or device != "cpu" else CPU_BUDGET
    refused = 0
    extras = Extras(stages=options.stages, energy=options.energy, after_idle=options.after_idle)
    events = time_rows(
        rows,
        processes=processes,
        time_budget=budget,
        data_root=options.data_root,
        out=out,
        command=command_line(),
        extras=extras,
    )
    for event in events:
        if isinstance(event, Refused):
            refused += 1
            console.print(f"[red]not timed[/] {escape(event.row.label)}: {escape(event.reason)}", soft_wrap=True)
        else:
            _show(event, processes, console)
    return refused


def _print_tables(timings: Path, console: Console) -> None:
    """Print what was measured here; what papers published stands in the report."""
    from reports.content.document import timing_sections
    from reports.content.timings import select_timings
    from reports.rendering.terminal import render_table

    sections = timing_sections(select_timings([timings]))
    for stem, table in (item for section in sections for item in section.tables.items()):
        if not stem.endswith("published"):
            console.print()
            console.print(render_table(table))


def _show(event: Timed, processes: int, console: Console) -> None:
    record = event.record
    main = record.event or record.wall
    console.print(
        f"{escape(event.row.label)} · process {event.process + 1} of {processes}: p50 {main.p50:.2f} ms, "
        f"{record.throughput:.4g} images/s, {record.sampling.count} passes, {record.verdict.status}",
        highlight=False,
        soft_wrap=True,
    )
