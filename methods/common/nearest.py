"""Exact nearest-neighbour search in a memory bank: by torch, or by faiss as an alternative."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.errors import MethodError

Search = Literal["torch", "faiss"]
CHUNK = 2**13
"""Queries compared with the bank at a time: bounds the distance matrix."""


def nearest_distances(queries: Tensor, bank: Tensor, bank_squares: Tensor, neighbours: int = 1) -> Tensor:
    """Squared Euclidean distances of queries to their nearest vectors of a memory bank.

    Args:
        queries: float32 (Q, D).
        bank: float32 (M, D), on the same device.
        bank_squares: Squared length of each vector of the bank, (M,).
        neighbours: How many; all M if there are fewer.

    Returns:
        float32 (Q, neighbours), ascending, at least 0.
    """
    neighbours = min(neighbours, len(bank))
    distances = []
    for chunk in queries.split(CHUNK):
        # The query's own square is the same for all vectors: it is added after the search.
        relative = torch.addmm(bank_squares, chunk, bank.T, alpha=-2)
        nearest = relative.topk(neighbours, largest=False).values if neighbours > 1 else relative.amin(1, True)
        distances.append((nearest + chunk.square().sum(1, keepdim=True)).clamp_min(0))
    return torch.cat(distances)


class NearestSearch(nn.Module):
    """:func:`nearest_distances` as a part of a detector, so that the time it takes can be told from the rest."""

    def forward(self, queries: Tensor, bank: Tensor, bank_squares: Tensor, neighbours: int = 1) -> Tensor:
        """Squared distances (Q, neighbours)."""
        return nearest_distances(queries, bank, bank_squares, neighbours)


def rows(features: Tensor) -> Tensor:
    """Features (B, D, h, w) as one row per position, (B * h * w, D)."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def check_faiss(device: torch.device) -> None:
    """Refuse to search by faiss where that is impossible.

    Raises:
        MethodError: faiss is not installed, or the installed one does not support the device.
    """
    try:
        import faiss
    except ImportError as error:
        raise MethodError(
            "search=faiss needs the package faiss, which is not installed\n"
            "  Install anomaly-bench[cpu] or, for NVIDIA GPUs, anomaly-bench[gpu]; or set search=torch: it finds the\n"
            "  same distances."
        ) from error
    if device.type != "cpu" and not (device.type == "cuda" and hasattr(faiss, "StandardGpuResources")):
        raise MethodError(
            f"the installed faiss cannot search on {device}\n  Install anomaly-bench[gpu], or set search=torch."
        )


class FaissSearch:
    """A memory bank as an index of faiss: the distances of :func:`nearest_distances` up to float32 rounding.

    Args:
        bank: float32 (M, D), on the device where the search shall run.

    Raises:
        MethodError: As :func:`check_faiss`.
    """

    def __init__(self, bank: Tensor) -> None:
        check_faiss(bank.device)
        import faiss
        import faiss.contrib.torch_utils  # lets an index take and return tensors

        self._index: Any
        if bank.device.type == "cuda":
            options = faiss.GpuIndexFlatConfig()
            options.device = bank.device.index or 0
            self._index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), bank.shape[1], options)
        else:
            self._index = faiss.IndexFlatL2(bank.shape[1])
        self._index.add(bank.contiguous())

    def __call__(self, queries: Tensor, neighbours: int = 1) -> Tensor:
        """Squared distances of float32 queries (Q, D) to their nearest vectors, (Q, neighbours), ascending."""
        distances: Tensor = self._index.search(queries.contiguous(), min(neighbours, self._index.ntotal))[0]
        return distances.clamp_min(0)
