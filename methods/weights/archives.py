"""Files inside downloaded archives."""

import re
import zipfile
from pathlib import Path

from methods.errors import WeightsError


def extract_member(archive: Path, member: str, directory: Path) -> Path:
    """Extract the one file called ``member``, in whatever folder of a zip archive, to ``directory``.

    Raises:
        WeightsError: The archive is damaged, does not hold the file once, or has members outside its own folder.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            names = file.namelist()
            unsafe = [name for name in names if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name)]
            if unsafe:
                raise WeightsError(f"{archive} has members outside its own folder: {', '.join(unsafe)}; delete it")
            found = [name for name in names if name.rsplit("/", 1)[-1] == member]
            if len(found) != 1:
                raise WeightsError(f"{archive} should hold {member} once; it holds {', '.join(names)}")
            target = directory / member
            target.write_bytes(file.read(found[0]))
            return target
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{archive} is not a readable zip archive ({error}); delete it and run again") from error
