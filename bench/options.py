"""What a user asks of a command: one typed model each, of which flags, help, defaults and configuration keys are made.

Importing this module loads nothing heavy: ``bench --help`` needs the models, and pydantic only when values are there.
"""

import inspect
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from bench.errors import UsageError, unknown_name
from bench.option_types import (
    DataRoot,
    Device,
    Flag,
    Folder,
    Limits,
    Listed,
    Masks,
    Parsed,
    RayNeeds,
    Sizes,
    WeightsDir,
    assignments,
    default_data_root,
    joined,
    listed,
)
from methods.weights.files import default_weights_directory

Model = TypeVar("Model")


@dataclass(frozen=True)
class RunOptions:
    """Everything that ``bench run`` takes; what it says of each option is the help of its flag.

    Attributes:
        methods: Methods, comma separated, or all; bench methods lists them. FILE:CLASS is a detector in a Python file.
        datasets: all, demo, COLLECTION or COLLECTION/SCENARIO, comma separated.
        data_root: Folder of the collections.
        masks: nonzero or half: which values of a mask mark a defect, where it holds several labels.
        seeds: Such as 0,1,2.
        out: Run folder; what is already done in it is kept.
        device: auto, cpu, cuda or cuda:N.
        workers: Worker processes; they share the CPU cores. On a Ray cluster: cells at a time.
        threads: CPU threads of each worker; with as many, results are the same bit for bit wherever cells run.
        engine: Where cells run: local, in processes of this machine; ray, as tasks of a Ray cluster; slurm, in jobs
            that are submitted from here.
        ray_address: A running Ray cluster, HOST:PORT, or auto for the one that this machine belongs to.
        ray: What each cell takes of a Ray cluster, such as num_gpus=0.5,num_cpus=4,memory=8e9.
        slurm: Options of sbatch, such as partition=gpu,gpus_per_node=1,time=04:00:00; time must be enough for the
            longest cell.
        jobs: Jobs to submit; they divide the cells among themselves.
        shard: i/n: only the i-th of n parts of the cells, for schedulers that this program does not know.
        train_scale: Multiplies every training length; stamped on all results.
        set: One option of a method, METHOD.FIELD=VALUE; repeatable.
        preset: Named option set of the methods; embedded needs no download. Of several, comma separated, each method
            takes the first that it has.
        penalty_images: Folder of photographs for EfficientAD's pretraining penalty, or none.
        weights_dir: Where downloaded weights are kept.
        precision: Of the networks of fitted detectors; stamped on all results.
        tf32: Let a GPU round the factors of float32 products to TF32; stamped on all results.
        hold_out: Hold out the protocol's share of training images of every method, to choose thresholds on them;
            stamped on rows that it changes.
        cache: Keep decoded images on disk.
        keep_maps: Keep the anomaly maps.
        keep_models: Keep the fitted detectors, to predict with them again.
        oracle: Also evaluate every epoch's state on the test images, to show what choosing among them would gain.
        force: Run in a precision that this CPU only emulates, which takes ages.
        dry_run: Only print what would be run, as bench plan does; fetches missing weights, whose digest names a cell.
        json: Print that as JSON.
        retry_failed: Run the cells again that failed before.
        cell_timeout: Seconds after which a cell is given up and fails, such as one whose method hangs.
        cell_memory: GB of main memory beyond which a cell is given up and fails.
        retry: How often a cell is run again whose process or node has died; one whose method fails is not.
        takeover_after: Seconds without a sign of life after which another run on the same folder is taken for dead,
            and its cells are run here.
        strict_environment: Refuse to add records to a run folder whose others are of other versions of packages.
        time: Then time one fitted detector of each method, as bench time does by its defaults.
    """

    methods: Annotated[tuple[str, ...], Limits(min_length=1), Parsed(listed), Flag(completions="methods")]
    datasets: Annotated[str, Parsed(joined), Flag(completions="datasets")] = "all"
    data_root: DataRoot = field(default_factory=default_data_root)
    masks: Masks = None
    seeds: Annotated[tuple[Annotated[int, Limits(ge=0)], ...], Limits(min_length=1), Parsed(listed)] = (0,)
    out: Annotated[
        Folder | None, Flag(default="the newest folder under runs/ with the same cells, else runs/<UTC time>")
    ] = None
    device: Device = "auto"
    workers: Annotated[Annotated[int, Limits(ge=1)] | None, Flag(default="one per GPU, on the CPU one per 8 cores")] = (
        None
    )
    threads: Annotated[Annotated[int, Limits(ge=1)] | None, Flag(default="the cores shared out; on Ray num_cpus")] = (
        None
    )
    engine: Literal["local", "ray", "slurm"] = "local"
    ray_address: Annotated[str | None, Flag(default="$RAY_ADDRESS, else a cluster is started here")] = None
    ray: Annotated[RayNeeds, Flag(default="a GPU with --device cuda, and its share of the node's CPUs")] = field(
        default_factory=dict
    )
    slurm: Listed = ()
    jobs: Annotated[Annotated[int, Limits(ge=1)] | None, Flag(default="one per cell, at most 20")] = None
    shard: Annotated[str, Limits(pattern=r"^[1-9]\d*/[1-9]\d*$")] | None = None
    train_scale: Annotated[float, Limits(gt=0, allow_inf_nan=False)] = 1.0
    set: Annotated[dict[str, dict[str, Any]], Parsed(assignments)] = field(default_factory=dict)
    preset: Annotated[Listed, Flag(default="each paper's options, on the demo alone demo,embedded")] = ()
    penalty_images: Annotated[
        Literal["none"] | Folder | None,
        Flag(default="imagenet, else photographs under the data root, else none"),
    ] = None
    weights_dir: WeightsDir = field(default_factory=default_weights_directory)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    tf32: bool = False
    hold_out: bool = False
    cache: Annotated[bool, Flag(negatable=True)] = True
    keep_maps: Annotated[bool, Flag(negatable=True)] = False
    keep_models: Annotated[bool, Flag(negatable=True)] = False
    oracle: bool = False
    force: bool = False
    dry_run: bool = False
    json: bool = False
    retry_failed: bool = False
    cell_timeout: Annotated[Annotated[float, Limits(gt=0, allow_inf_nan=False)] | None, Flag(default="none")] = None
    cell_memory: Annotated[Annotated[float, Limits(gt=0, allow_inf_nan=False)] | None, Flag(default="none")] = None
    retry: Annotated[int, Limits(ge=0)] = 0
    takeover_after: Annotated[float, Limits(gt=0, allow_inf_nan=False)] = 60.0
    strict_environment: bool = False
    time: bool = False


@dataclass(frozen=True)
class EvaluationOptions:
    """Everything that ``bench evaluate`` takes; what it says of each option is the help of its flag.

    Attributes:
        maps: Folder with <scenario>/test/<defect>/<stem>.tiff (or .npy, .npz), or a run folder whose cells kept their
            maps or their models.
        model: Instead of maps: a detector that bench export has written, .onnx or .xml.
        name: What tables call the method that made the maps; not for a run.
        source: Its paper or product.
        seed: Tells several trainings of one method apart.
        datasets: COLLECTION or COLLECTION/SCENARIO, comma separated.
        data_root: Folder of the collections.
        masks: nonzero or half: which values of a mask mark a defect, where it holds several labels.
        out: Run folder.
        upsample: The maps are of the whole image at the network's resolution.
        with_models: Predict again with the models that a run kept, instead of reading its maps.
        definitions: all: also show what other definitions of AU-PRO make of the maps.
    """

    maps: Annotated[Folder | None, Flag(argument="MAPS")] = None
    model: Folder | None = None
    name: str | None = None
    source: str | None = None
    seed: Annotated[int, Limits(ge=0)] = 0
    datasets: Annotated[
        str | None, Parsed(joined), Flag(default="all that the maps are of", completions="datasets")
    ] = None
    data_root: DataRoot = field(default_factory=default_data_root)
    masks: Masks = None
    out: Annotated[Folder | None, Flag(default="runs/<UTC time>")] = None
    upsample: bool = False
    with_models: bool = False
    definitions: Literal["all"] | None = None


@dataclass(frozen=True)
class SubmissionOptions:
    """Everything that ``bench submit`` takes; what it says of each option is the help of its flag.

    Attributes:
        run: Run folder whose cells of MVTec AD 2 have kept their models.
        out: Folder to write; must not exist, or be empty.
        method: Which of several methods in the run.
        seed: Which of several seeds in the run.
        thresholds: Rule whose thresholds the thresholded images are made with, such as mean+3sd, fpr0.05 or
            image_fpr0.05; none for no thresholded images.
        incomplete: Write what there is, though the owners' site will not take it.
        data_root: Folder of the collections.
        device: auto, cpu, cuda or cuda:N.
    """

    run: Annotated[Folder, Flag(argument="RUN")]
    out: Annotated[Folder | None, Flag(default="submission in the run folder")] = None
    method: str | None = None
    seed: Annotated[int, Limits(ge=0)] | None = None
    thresholds: str = "mean+3sd"
    incomplete: bool = False
    data_root: DataRoot = field(default_factory=default_data_root)
    device: Device = "auto"


OneStep = 1e-9
"""As a train scale: so little that every method takes one step."""


@dataclass(frozen=True)
class TimingOptions:
    """Everything that ``bench time`` takes; what it says of each option is the help of its flag.

    Attributes:
        run: Run folder whose cells have kept their models; or name methods, which are fitted first.
        methods: Methods to fit and time, comma separated, or all.
        datasets: What they are fitted on, one scenario: the size of a memory bank depends on it.
        data_root: Folder of the collections.
        set: One option of a method, METHOD.FIELD=VALUE; repeatable.
        preset: Named option set of the methods; embedded needs no download.
        train_scale: Multiplies every training length; latency does not depend on it, so one step is enough.
        weights_dir: Where downloaded weights are kept.
        device: auto, cpu, cuda or cuda:N.
        protocol: paper (EfficientAD, Appendix E), rigorous or mvtec_ad2; docs/timing.md explains them.
        batch: Images per pass, such as 1,16.
        input_size: Sides of the images in pixels, such as 256,1024x1224, of methods that take any.
        precision: Of the networks, such as fp32,bf16; int8 by openvino, of models that bench export has quantised.
        backend: What runs the detectors, such as eager,openvino: eager, compile, cudagraph, onnxruntime, openvino,
            tensorrt.
        fused: Time the methods' fused forms for inference, of those that have one.
        processes: Fresh processes per row.
        time_budget: Seconds of passes per row.
        mode: request: one pass at a time; stream: passes overlap; device: replays of a CUDA graph, without transfers.
        cache: warm, or cold: the last cache is flushed before each pass, outside of what is timed.
        line_rate: Time a production line that takes so many images a second.
        deadline_ms: From trigger to map, on that line.
        jitter: Largest shift of a trigger, as a share of the time between two.
        stages: Also time the parts of a pass, such as transfer, each network, search.
        energy: Also measure the energy of an image, of the GPU's board; half a minute per process.
        after_idle: Also time the first pass after so many seconds of rest, five times.
        threads: CPU threads.
        require_gpu: Exit with 3 where there is no GPU.
        out: Folder of the models and records; of a run folder, the run folder itself.
    """

    run: Annotated[Folder | None, Flag(argument="RUN")] = None
    methods: Annotated[tuple[str, ...], Parsed(listed), Flag(completions="methods")] = ()
    datasets: Annotated[str, Parsed(joined), Flag(completions="datasets")] = "demo/gravel"
    data_root: DataRoot = field(default_factory=default_data_root)
    set: Annotated[dict[str, dict[str, Any]], Parsed(assignments)] = field(default_factory=dict)
    preset: Annotated[Listed, Flag(default="each paper's options, on the demo demo,embedded")] = ()
    train_scale: Annotated[float, Limits(gt=0, allow_inf_nan=False), Flag(default="one step")] = OneStep
    weights_dir: WeightsDir = field(default_factory=default_weights_directory)
    device: Device = "auto"
    protocol: Literal["paper", "rigorous", "mvtec_ad2"] = "paper"
    batch: Annotated[
        tuple[Annotated[int, Limits(ge=1)], ...] | None, Parsed(listed), Flag(default="the protocol's")
    ] = None
    input_size: Annotated[Sizes | None, Flag(default="each method's own")] = None
    precision: Annotated[
        tuple[Literal["fp32", "bf16", "fp16", "int8"], ...] | None, Parsed(listed), Flag(default="the protocol's")
    ] = None
    backend: Annotated[
        tuple[Literal["eager", "compile", "cudagraph", "onnxruntime", "openvino", "tensorrt"], ...], Parsed(listed)
    ] = ("eager",)
    fused: bool = False
    processes: Annotated[Annotated[int, Limits(ge=1)] | None, Flag(default="the protocol's")] = None
    time_budget: Annotated[
        Annotated[float, Limits(gt=0, allow_inf_nan=False)] | None, Flag(default="on a CPU 60, on a GPU no limit")
    ] = None
    mode: Annotated[Literal["request", "stream", "device"] | None, Flag(default="request; line with a rate")] = None
    cache: Literal["warm", "cold"] = "warm"
    line_rate: Annotated[float, Limits(gt=0, allow_inf_nan=False)] | None = None
    deadline_ms: Annotated[float, Limits(gt=0, allow_inf_nan=False)] | None = None
    jitter: Annotated[float, Limits(ge=0, le=1)] = 0.0
    stages: bool = False
    energy: bool = False
    after_idle: Annotated[float, Limits(gt=0, allow_inf_nan=False)] | None = None
    threads: Annotated[Annotated[int, Limits(ge=1)] | None, Flag(default="all cores")] = None
    require_gpu: bool = False
    out: Annotated[Folder | None, Flag(default="RUN, else runs/<UTC time>")] = None


@dataclass(frozen=True)
class ExportOptions:
    """Everything that ``bench export`` takes; what it says of each option is the help of its flag.

    Attributes:
        models: Folders of cells that have kept their models, or of runs with such cells.
        format: onnx, openvino or torch_export.
        precision: Of the networks; onnx takes fp32 and fp16, openvino fp32, bf16 and int8, torch_export all but int8.
        batch: Images per call.
        fused: Export the method's fused form for inference, where it has one.
        allow_flips: Write the file though it judges a test image otherwise than the module does.
        data_root: Folder of the collections, for the test images.
        out: File to write, of a single model.
    """

    models: Annotated[list[Folder], Flag(argument="CELL...")]
    format: Literal["onnx", "openvino", "torch_export"] = "onnx"
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    batch: Annotated[int, Limits(ge=1)] = 1
    fused: bool = False
    allow_flips: bool = False
    data_root: DataRoot = field(default_factory=default_data_root)
    out: Annotated[Folder | None, Flag(default="METHOD-PRECISION.onnx and so on, in the cell's folder")] = None


def resolve(model: type[Model], given: Mapping[str, object], command: str, config: Path | None = None) -> Model:
    """Make a command's options of what was given; a flag wins over the configuration file, ``set`` values are merged.

    Args:
        model: Dataclass of the options.
        given: Option name to value, a string where the user wrote one; ``None`` where nothing was given.
        command: For messages, such as ``bench run``.
        config: TOML file whose keys are the flags' names. Its paths are relative to the current folder, as those of
            flags are.

    Raises:
        UsageError: The file cannot be read, a key is unknown, or a value is missing or not what the option takes.
    """
    from pydantic import TypeAdapter, ValidationError

    values = {name: value for name, value in given.items() if value is not None}
    if config is not None:
        below = _read_config(config, model)
        if "set" in below and "set" in values:
            values["set"] = _merged(_checked_set(below["set"], command), _checked_set(values["set"], command))
        values = {**below, **values}
    try:
        return TypeAdapter(model).validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        if problem["type"] == "missing":
            raise UsageError(f"no {name} named\n  Pass --{flag_name(name)}. {described(model)[name]}") from error
        raise _bad_value(name, values.get(name), problem["msg"], command) from error


def flag_name(option: str) -> str:
    """What an option is called on the command line; a field that would be a Python keyword ends with an underscore."""
    return option.rstrip("_").replace("_", "-")


def described(model: type[Any]) -> dict[str, str]:
    """What a class and those above it say of their fields in their docstrings: name to text, without markup.

    Docstrings are in Google style.
    """
    texts: dict[str, str] = {}
    for above in reversed(model.__mro__):
        name = ""
        for line in inspect.cleandoc(above.__doc__ or "").partition("Attributes:")[2].splitlines():
            head = re.match(r" {4}(\w+): (.*)", line)
            if head:
                name = head[1]
                texts[name] = head[2]
            elif name and line.startswith(" " * 8):
                texts[name] += f" {line.strip()}"
    return {name: text.replace("``", "") for name, text in texts.items()}


def _checked_set(value: object, command: str) -> Mapping[str, Mapping[str, object]]:
    try:
        parsed = assignments(value)
    except ValueError as error:
        raise _bad_value("set", value, str(error), command) from error
    assert isinstance(parsed, Mapping)
    return parsed


def _merged(
    below: Mapping[str, Mapping[str, object]], above: Mapping[str, Mapping[str, object]]
) -> dict[str, dict[str, object]]:
    return {method: {**below.get(method, {}), **above.get(method, {})} for method in {**below, **above}}


def _read_config(path: Path, model: type[Any]) -> dict[str, object]:
    try:
        # Editors on Windows begin files with a byte order mark.
        table = tomllib.loads(path.expanduser().read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the configuration {path} is not UTF-8 ({error.reason}): save it as UTF-8") from error
    except ValueError as error:
        raise UsageError(f"the configuration {path} is not valid TOML: {error}") from error
    names = {flag_name(option.name): option.name for option in fields(model)}
    for key in table:
        if flag_name(key) not in names:
            raise unknown_name(f"key in {path}:", key, sorted(names))
    return {names[flag_name(key)]: value for key, value in table.items()}


def _bad_value(name: str, value: object, reason: str, command: str) -> UsageError:
    return UsageError(f"--{flag_name(name)} does not take {value!r}: {reason}\n  {command} --help says what it takes.")
