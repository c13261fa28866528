import sys

import pytest
import torch

from methods.common.nearest import CHUNK, FaissSearch, check_faiss, nearest_distances
from methods.errors import MethodError

CPU = torch.device("cpu")


def by_torch(bank, queries, neighbours=1):
    return nearest_distances(queries, bank, bank.square().sum(1), neighbours)


def by_faiss(bank, queries, neighbours=1):
    pytest.importorskip("faiss")
    return FaissSearch(bank)(queries, neighbours)


def brute_force(bank, queries, neighbours):
    distances = (queries[:, None].double() - bank[None].double()).square().sum(2)
    return distances.sort(1).values[:, :neighbours].float()


def vectors(count, dim, seed):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


both = pytest.mark.parametrize("search", [by_torch, by_faiss])


@both
@pytest.mark.parametrize(("count", "queries", "neighbours"), [(1, 3, 1), (300, 200, 1), (300, 200, 9), (5, 4, 9)])
def test_equals_brute_force(search, count, queries, neighbours):
    bank, asked = vectors(count, 64, seed=0), vectors(queries, 64, seed=1)
    nearest = search(bank, asked, neighbours)
    torch.testing.assert_close(nearest, brute_force(bank, asked, neighbours), rtol=1e-5, atol=1e-4)


@both
def test_vector_of_the_bank_is_at_distance_zero(search):
    bank = vectors(50, 32, seed=0)
    distances = search(bank, bank)
    assert (distances >= 0).all()
    assert distances.max() < 1e-4


def test_more_queries_than_a_chunk():
    bank, queries = vectors(3, 8, seed=0), vectors(CHUNK + 1000, 8, seed=1)
    torch.testing.assert_close(by_torch(bank, queries), brute_force(bank, queries, 1), rtol=1e-5, atol=1e-5)


def test_without_faiss_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MethodError, match=r"not installed\n  Install anomaly-bench\[cpu\].*or set search=torch"):
        FaissSearch(vectors(2, 2, seed=0))


def test_faiss_without_gpu_support_is_refused_on_a_gpu():
    faiss = pytest.importorskip("faiss")
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this faiss can search on GPUs")
    check_faiss(CPU)
    for device in (torch.device("cuda"), torch.device("meta")):
        with pytest.raises(MethodError, match=rf"cannot search on {device.type}\n  Install anomaly-bench\[gpu\]"):
            check_faiss(device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu():
    bank, queries = vectors(3000, 1024, seed=0), vectors(784, 1024, seed=1)
    nearest = by_torch(bank.cuda(), queries.cuda())
    assert nearest.is_cuda
    torch.testing.assert_close(nearest.cpu(), by_torch(bank, queries), rtol=1e-4, atol=1e-2)
