"""``bench data stats``: counts, image sizes, defect areas, and what resizing masks costs."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from bench.commands.flags import console
from bench.option_types import DataRoot, Flag, Folder, Limits, Masks, default_data_root

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from bench.datasets.statistics import Statistics


@dataclass(frozen=True)
class StatsOptions:
    """Everything that ``bench data stats`` takes.

    Attributes:
        names: all, demo, a collection, or collection/scenario.
        data_root: Folder of the collections.
        masks: nonzero or half: which values of a mask mark a defect, where it holds several labels.
        out: Write figures and CSV files to this folder.
        side: Height and width in pixels that masks are resized to, to see which defects vanish.
    """

    names: Annotated[list[str] | None, Flag(argument="[NAME]...", completions="datasets")] = None
    data_root: DataRoot = field(default_factory=default_data_root)
    masks: Masks = None
    out: Folder | None = None
    side: Annotated[int, Limits(ge=1)] = 224


def stats(options: StatsOptions) -> int:
    """Print how many images there are, of which size, how large the defects are, and which of them resizing loses."""
    from bench.commands.data.scenarios import named_scenarios
    from bench.datasets.statistics import describe

    terminal = console()
    described = []
    for scenario in named_scenarios(options.names, options.data_root, options.masks):
        with terminal.status(f"reading {scenario.id}"):
            described.append(describe(scenario, options.side))
    terminal.print(_images_table(described))
    with_regions = [scenario for scenario in described if scenario.pixels.size]
    if with_regions:
        terminal.print(_areas_table(with_regions))
        terminal.print(_losses_table(with_regions, options.side))
        terminal.print(
            "A region is 8-connected. It vanishes when none of its pixels lies in a marked pixel of the resized mask; "
            "fewer counts neighbours that become one, too. Bilinear is antialiased and cut at half.",
            highlight=False,
            soft_wrap=True,
        )
    if options.out is not None:
        for path in _write(described, with_regions, options.out):
            terminal.print(str(path), highlight=False, markup=False, soft_wrap=True)
    return 0


def _images_table(scenarios: Sequence["Statistics"]) -> "Table":
    table = _table("Images", ("Scenario", "Train", "Validation", "Normal", "Anomalous", "Height × width"))
    for one in scenarios:
        counts = (one.train, one.validation, one.normal, one.anomalous)
        table.add_row(one.scenario, *(f"{count:,}" for count in counts), _sizes(one.sizes))
    return table


def _areas_table(scenarios: Sequence["Statistics"]) -> "Table":
    import numpy as np

    from metrics.sizes import QUARTILES

    heads = ("Scenario", "Regions", "Smallest", "25 %", "Median", "75 %", "Largest")
    table = _table("Defect regions: area in % of the image", heads)
    rows = [(one.scenario, one.shares) for one in scenarios]
    for name, shares in [*rows, ("all", np.concatenate([shares for _, shares in rows]))][: _with_total(rows)]:
        borders = np.quantile(shares, (0, *QUARTILES))
        table.add_row(name, f"{shares.size:,}", *(f"{100 * share:.2g}" for share in borders))
    return table


def _losses_table(scenarios: Sequence["Statistics"], side: int) -> "Table":
    from bench.datasets.statistics import RESAMPLINGS, Shrinking

    heads = [f"{what}, {name}" for name in RESAMPLINGS for what in ("Vanish", "Fewer")]
    table = _table(f"Defect regions lost in masks of {side}×{side}, in %", ("Scenario", *heads))
    rows = [(one.scenario, [one.shrunk(name) for name in RESAMPLINGS]) for one in scenarios]
    total = [sum(shrunk, Shrinking()) for shrunk in zip(*(shrunk for _, shrunk in rows), strict=True)]
    for scenario, shrunk in [*rows, ("all", total)][: _with_total(rows)]:
        shares = [share or 0.0 for one in shrunk for share in (one.vanished_share, one.reduction)]
        table.add_row(scenario, *(f"{100 * share:.2f}" for share in shares))
    return table


def _with_total(rows: Sequence[object]) -> int:
    """How many rows are shown of these and their total: one needs none."""
    return len(rows) + 1 if len(rows) > 1 else 1


def _table(title: str, heads: Sequence[str]) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left", overflow="fold")
    return table


def _sizes(sizes: dict[tuple[int, int], int]) -> str:
    """The one size, or how many there are and from where to where they reach."""
    if len(sizes) <= 2:
        return ", ".join(f"{height} × {width}" for height, width in sizes)
    heights, widths = zip(*sizes, strict=True)
    return f"{min(heights)}–{max(heights)} × {min(widths)}–{max(widths)}, {len(sizes)} sizes"


def _write(described: Sequence["Statistics"], with_regions: Sequence["Statistics"], folder: "Path") -> list["Path"]:
    """Write the figures, and the numbers behind them as CSV."""
    from bench.datasets.figures import draw_defect_areas, draw_image_sizes
    from reports.rendering.figures.style import encode
    from results.atomic import write_atomically

    figures = {"image_sizes": draw_image_sizes(described)}
    if with_regions:
        figures["defect_areas"] = draw_defect_areas(with_regions)
    files = {f"{stem}.png": encode(figure, "png") for stem, figure in figures.items()}
    files |= {f"{stem}.pdf": encode(figure, "pdf") for stem, figure in figures.items()}
    files["scenarios.csv"] = _delimited([_scenario_row(one) for one in described])
    if with_regions:
        files["defects.csv"] = _delimited([row for one in with_regions for row in _defect_rows(one)])
    for name, content in sorted(files.items()):
        write_atomically(folder / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    return [folder / name for name in sorted(files)]


def _scenario_row(one: "Statistics") -> dict[str, object]:
    from bench.datasets.statistics import RESAMPLINGS

    row: dict[str, object] = {"scenario": one.scenario, "train": one.train, "validation": one.validation}
    row |= {"test_normal": one.normal, "test_anomalous": one.anomalous, "regions": one.pixels.size}
    borders = one.quartiles or ("",) * 4
    row |= {f"area_share_q{index}": border for index, border in enumerate(borders, start=1)}
    for name in RESAMPLINGS:
        shrunk = one.shrunk(name)
        row |= {f"regions_{name}_{one.side}": shrunk.after, f"vanished_{name}_{one.side}": shrunk.vanished}
    return row


def _defect_rows(one: "Statistics") -> list[dict[str, object]]:
    return [
        {"scenario": one.scenario, "image": image.image, "defect": image.defect, "pixels": pixels, "area_share": share}
        for image in one.defects
        for pixels, share in zip(image.pixels.tolist(), image.share.tolist(), strict=True)
    ]


def _delimited(rows: Sequence[dict[str, object]]) -> bytes:
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
