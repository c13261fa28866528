import torch

from methods.common.statistics import ChannelStatistics


def test_statistics_are_those_of_all_positions_of_all_batches():
    torch.manual_seed(0)
    # A mean a thousand standard deviations from zero: float32 sums of squares would lose the variance.
    features = 1000 + torch.randn(5, 3, 4, 6)
    statistics = ChannelStatistics(3, torch.device("cpu"))
    for batch in features.split(2):
        statistics.add(batch.contiguous(memory_format=torch.channels_last))
    mean, std = statistics.mean_and_std()
    assert mean.shape == std.shape == (1, 3, 1, 1)
    assert mean.dtype == std.dtype == torch.float32
    by_channel = features.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean.flatten(), by_channel.mean(1).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(std.flatten(), by_channel.std(1, correction=0).float(), rtol=1e-6, atol=0)


def test_a_constant_channel_can_be_divided_by():
    statistics = ChannelStatistics(2, torch.device("cpu"))
    statistics.add(torch.full((1, 2, 3, 3), 0.1))
    assert (statistics.mean_and_std()[1] == 1e-6).all()
    assert (statistics.mean_and_std(least_std=0.5)[1] == 0.5).all()
