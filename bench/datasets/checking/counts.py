"""Numbers and sizes of images against the catalogue."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.datasets.accounting import images_in
from bench.datasets.catalogue import KnownCollection, PublishedImages, known_by_scenario
from bench.datasets.checking.finding import Finding, by, count, get_again, images_of, relative_names, some
from bench.datasets.checking.inspection import Inspected
from bench.datasets.scenario import Scenario


def familiar_name(scenario: Scenario) -> Iterator[Finding]:
    """Point out that a scenario bears a published one's name in a collection of another."""
    known = known_by_scenario(scenario.name)
    if known is not None:
        yield Finding(
            "familiar name",
            f"{known.title} has a scenario {scenario.name}, but {scenario.collection.name} is another collection",
            f"If this is that scenario, put it into a folder {known.name}.",
            problem=False,
        )


def compare_counts(scenario: Scenario, known: KnownCollection, published: PublishedImages) -> Iterator[Finding]:
    """Compare how many images of each set and kind of defect there are."""
    kinds = Counter(image.defect for image in scenario.test if image.anomalous)
    anomalous = [image.path for image in scenario.test if image.anomalous]
    normal = [image.path for image in scenario.test if not image.anomalous]
    counted = (
        ("training", scenario.train, published.train, ""),
        ("validation", scenario.validation, published.validation, ""),
        ("normal test", normal, published.test_normal, ""),
        ("anomalous test", anomalous, published.test_anomalous, _by_kind(kinds, published.defects)),
    )
    if all(of is None for _, _, of, _ in counted):
        yield Finding("not in the catalogue", "nobody has counted the published images", problem=False)
    for what, paths, of, details in counted:
        if of is None or (len(paths) == of and not details):
            continue
        gaps = _gaps(paths) if len(paths) < of else ""
        text = f"{len(paths)} of {of} {what} images{details}{gaps}"
        if len(paths) > of:
            fix = f"Remove what {known.title} does not hold, or put it into a collection of your own."
            yield Finding("extra images", text, fix, files=relative_names(scenario, paths))
        elif len(paths) < of:
            yield Finding("missing images", text, f"Incomplete download or unpacking? {get_again(known)}")
        else:
            yield Finding("other kinds of defects", text, get_again(known))


def _by_kind(kinds: Counter[str], published: Mapping[str, int]) -> str:
    """How many images of each kind of defect there are, where that differs."""
    differing = [name for name in {**published, **kinds} if published and kinds[name] != published.get(name, 0)]
    listed = ", ".join(f"{name} {kinds[name]} of {published.get(name, 0)}" for name in differing)
    return f" ({listed})" if listed else ""


def _gaps(paths: Sequence[Path]) -> str:
    """How many numbers are missing between the first and the last, where all names are numbers and in one folder."""
    if not all(path.stem.isdecimal() for path in paths) or len({path.parent for path in paths}) != 1:
        return ""
    first, last = (path.stem for path in (min(paths), max(paths)))
    there = {int(path.stem) for path in images_in(paths[0].parent) if path.stem.isdecimal()}
    missing = len(set(range(int(first), int(last))) - there)
    numbers = "1 number is" if missing == 1 else f"{missing} numbers are"
    return f"; between {first} and {last} {numbers} missing" if missing else ""


def compare_sizes(
    scenario: Scenario, published: PublishedImages, inspected: Mapping[Path, Inspected]
) -> Iterator[Finding]:
    """Find images of other sizes than the published ones, where all of these are known."""
    if not published.sizes:
        return
    odd = [path for path in images_of(scenario) if inspected[path].size not in (None, *published.sizes)]
    if odd:
        sizes = dict.fromkeys(by(inspected[path].size or ()) for path in odd)
        text = (
            f"{count(odd, 'image')} of {some(sizes)} pixels, published are "
            f"{some(map(by, published.sizes))} (height × width)"
        )
        fix = "Resized or cropped copies give other numbers: use the published files."
        yield Finding("other image sizes", text, fix, files=relative_names(scenario, odd))
