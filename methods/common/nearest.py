"""Exact nearest-neighbour search in a memory bank, by faiss or by torch."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from methods.errors import MethodError

Search = Literal["auto", "faiss", "torch"]


class NearestNeighbours:
    """Squared Euclidean distances from queries to their nearest vectors of a memory bank.

    Args:
        bank: float32 (M, D), on the device where the search shall run.
        search: ``faiss``, ``torch``, or ``auto``: faiss where it supports the bank's device, else torch. The
            distances are the same up to float32 rounding.

    Raises:
        MethodError: ``faiss`` was asked for but does not support the device.
    """

    def __init__(self, bank: Tensor, search: Search = "auto") -> None:
        self.bank = bank
        supported = bank.device.type == "cpu" or (bank.device.type == "cuda" and _faiss_has_gpu())
        if search == "faiss" and not supported:
            raise MethodError(
                f"the installed faiss cannot search on {bank.device}; install faiss-gpu, or set search=torch"
            )
        self._search: Callable[[Tensor, int], Tensor] = (
            _faiss_search(bank) if supported and search != "torch" else self._torch_search
        )
        self._squares = bank.square().sum(1)

    def __call__(self, queries: Tensor, neighbours: int = 1) -> Tensor:
        """Squared distances of float32 queries (Q, D) to their nearest vectors, (Q, neighbours), ascending."""
        return self._search(queries, min(neighbours, len(self.bank)))

    def _torch_search(self, queries: Tensor, neighbours: int) -> Tensor:
        distances = []
        for chunk in queries.split(2**13):  # bounds the distance matrix
            # The query's own square is the same for all vectors: it is added after the search.
            relative = torch.addmm(self._squares, chunk, self.bank.T, alpha=-2)
            nearest = relative.topk(neighbours, largest=False).values if neighbours > 1 else relative.amin(1, True)
            distances.append((nearest + chunk.square().sum(1, keepdim=True)).clamp_min(0))
        return torch.cat(distances)


def _faiss_has_gpu() -> bool:
    import faiss

    return hasattr(faiss, "StandardGpuResources")


def _faiss_search(bank: Tensor) -> Callable[[Tensor, int], Tensor]:
    import faiss
    import faiss.contrib.torch_utils  # lets an index take and return tensors

    index: Any
    if bank.device.type == "cuda":
        options = faiss.GpuIndexFlatConfig()
        options.device = bank.device.index or 0
        index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), bank.shape[1], options)
    else:
        index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.contiguous())

    def search(queries: Tensor, neighbours: int) -> Tensor:
        distances: Tensor = index.search(queries.contiguous(), neighbours)[0]
        return distances.clamp_min(0)

    return search
