import math

import pytest

from methods.common.positional_encoding import positional_encoding


def test_each_channel_is_a_wave_along_one_axis():
    encoding = positional_encoding(32, (5, 7))
    assert encoding.shape == (32, 5, 7)
    for pair in range(8):
        frequency = 10_000 ** (-2 * pair / 16)
        for row in range(5):
            for column in range(7):
                expected = [wave(frequency * place) for place in (column, row) for wave in (math.sin, math.cos)]
                seen = [encoding[offset + 2 * pair + k, row, column].item() for offset in (0, 16) for k in (0, 1)]
                assert seen == pytest.approx(expected, abs=1e-6)


def test_channels_that_cannot_be_halved_twice():
    with pytest.raises(ValueError, match="multiple of 4, not 6"):
        positional_encoding(6, (2, 2))
