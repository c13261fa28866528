import numpy as np
import pytest
import torch

from methods.common.coreset import greedy_coreset


def naive_coreset(points, count, starts):
    """The loop as written in the paper: all points against each pick."""
    distances = torch.stack([(points - points[start]).square().sum(1).sqrt() for start in starts], 1).mean(1).square()
    picks = []
    for _ in range(count):
        picks.append(int(np.argmax(distances.numpy())))  # torch.argmax leaves ties open
        distances = torch.minimum(distances, (points - points[picks[-1]]).square().sum(1))
    return torch.tensor(picks)


def clustered(count, dim, generator):
    centres = torch.randn(20, dim, generator=generator) * 3
    chosen = torch.randint(20, (count,), generator=generator)
    return centres[chosen] + torch.randn(count, dim, generator=generator)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "dim", "picks"), [(1, 4, 1), (2, 3, 2), (50, 7, 50), (3000, 128, 300)])
def test_equals_the_naive_loop(count, dim, picks, seed):
    generator = torch.Generator().manual_seed(seed)
    points = clustered(count, dim, generator)
    starts = torch.randperm(count, generator=generator)[:10]
    assert greedy_coreset(points, picks, starts).tolist() == naive_coreset(points, picks, starts).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_naive_loop_in_ties(seed):
    # Small integers make squared distances exact, and many of them equal; every point exists about three times.
    generator = torch.Generator().manual_seed(seed)
    points = torch.randint(0, 3, (600, 5), generator=generator).float()
    starts = torch.tensor([seed])
    assert greedy_coreset(points, 600, starts).tolist() == naive_coreset(points, 600, starts).tolist()


def test_identical_points():
    assert greedy_coreset(torch.ones(5, 3), 3, torch.tensor([0, 1])).tolist() == [0, 0, 0]


def test_reports_progress():
    seen = []
    greedy_coreset(torch.randn(1000, 4), 250, torch.arange(10), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 250
    assert 100 <= len(seen) <= 130
