import pytest
import torch

from methods.common import nearest
from methods.common.nearest import NearestNeighbours
from methods.errors import MethodError


def brute_force(bank, queries, neighbours):
    distances = (queries[:, None].double() - bank[None].double()).square().sum(2)
    return distances.sort(1).values[:, :neighbours].float()


@pytest.mark.parametrize("search", ["auto", "faiss", "torch"])
@pytest.mark.parametrize(("vectors", "queries", "neighbours"), [(1, 3, 1), (300, 200, 1), (300, 200, 9), (5, 4, 9)])
def test_equals_brute_force(search, vectors, queries, neighbours):
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(vectors, 64, generator=generator)
    asked = torch.randn(queries, 64, generator=generator)
    found = NearestNeighbours(bank, search)(asked, neighbours)
    torch.testing.assert_close(found, brute_force(bank, asked, neighbours), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("search", ["faiss", "torch"])
def test_vector_of_the_bank_is_at_distance_zero(search):
    bank = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    distances = NearestNeighbours(bank, search)(bank)
    assert (distances >= 0).all()
    assert distances.max() < 1e-4


def test_more_queries_than_a_chunk():
    bank = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    queries = torch.randn(10_000, 8, generator=torch.Generator().manual_seed(1))
    by_torch, by_faiss = NearestNeighbours(bank, "torch")(queries), NearestNeighbours(bank, "faiss")(queries)
    torch.testing.assert_close(by_torch, by_faiss, rtol=1e-5, atol=1e-5)


def test_faiss_without_gpu_support_is_refused_on_a_gpu(monkeypatch):
    monkeypatch.setattr(nearest, "_faiss_has_gpu", lambda: False)
    bank = torch.empty(2, 2, device="meta")
    with pytest.raises(MethodError, match="cannot search on meta; install faiss-gpu, or set search=torch"):
        NearestNeighbours(bank, "faiss")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu():
    bank = torch.randn(3000, 1024, generator=torch.Generator().manual_seed(0))
    queries = torch.randn(784, 1024, generator=torch.Generator().manual_seed(1))
    expected = NearestNeighbours(bank)(queries)
    for search in ("auto", "torch"):
        found = NearestNeighbours(bank.cuda(), search)(queries.cuda())
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-2)
