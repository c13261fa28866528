"""What a layout is: it knows the scenarios in a collection's folder, and reads one."""

from pathlib import Path
from typing import Protocol

from bench.datasets.cache import Cache
from bench.datasets.scenario import Scenario


class Layout(Protocol):
    """A way in which collections lie on disk. Only names are read: no image is opened.

    Attributes:
        title: What messages call it.
        name: Of its module in this package; the catalogue names it so.
    """

    @property
    def title(self) -> str: ...  # noqa: D102

    @property
    def name(self) -> str: ...  # noqa: D102

    def scenarios(self, collection: Path) -> list[str]:
        """Name the scenarios in a collection's folder; none if it is not in this layout.

        Raises:
            DataError: A folder cannot be listed, or a file that lists the scenarios is damaged.
        """
        ...

    def read(self, collection: Path, scenario: str, cache: Cache) -> Scenario:
        """List the images of one scenario.

        What is missing is left out, and what is wrong is said in ``problems``: :meth:`Scenario.check` tells whether
        the rest will do.

        Raises:
            DataError: A folder cannot be listed, or a file that lists images is damaged.
        """
        ...
