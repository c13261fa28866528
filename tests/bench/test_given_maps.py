"""Files of anomaly maps from elsewhere."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from bench.errors import DataError
from bench.given_maps import read_map


@pytest.mark.parametrize("form", ["tiff", "npz", "npy"])
def test_whatever_is_damaged_in_a_map_names_its_file(form: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.random((40, 50), dtype=np.float32)
    file = tmp_path / f"map.{form}"
    if form == "tiff":
        tifffile.imwrite(file, array, compression="zlib")
    else:
        np.savez_compressed(file, array) if form == "npz" else np.save(file, array)
    whole = bytearray(file.read_bytes())
    messages = []
    for _ in range(150):
        damaged = whole.copy()
        for position in rng.integers(0, len(whole), 3):
            damaged[position] ^= int(rng.integers(1, 256))
        file.write_bytes(damaged[: rng.integers(1, len(whole))] if rng.random() < 0.3 else damaged)
        try:
            read_map(file)
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert all(str(file) in message for message in messages)
