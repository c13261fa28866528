from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from methods.common.patch_features import PatchFeatures


def literal(levels, dim, level_dim, patch_size):
    """The official pipeline step by step: unfold, resize, pool each level, stack, pool."""
    grid = levels[0].shape[-2:]
    pooled = []
    for level in levels:
        patches = F.unfold(level, patch_size, padding=patch_size // 2)
        patches = patches.view(*patches.shape[:2], *level.shape[-2:])
        rows = F.interpolate(patches, grid, mode="bilinear").permute(0, 2, 3, 1).flatten(0, 2)
        pooled.append(F.adaptive_avg_pool1d(rows[:, None], level_dim))
    rows = F.adaptive_avg_pool1d(torch.cat(pooled, 2), dim)
    return rows.view(len(levels[0]), *grid, dim).permute(0, 3, 1, 2)


class Levels(torch.nn.Module):
    def __init__(self, *shapes):
        super().__init__()
        self.levels = [torch.randn(shape, generator=torch.Generator().manual_seed(1)).relu() for shape in shapes]
        self.channels = [shape[1] for shape in shapes]

    def grid(self, size):
        return [level.shape[-2:] for level in self.levels]

    def forward(self, images):
        return self.levels


@pytest.mark.parametrize(
    ("channels", "dim", "level_dim", "patch_size"),
    [
        ((512, 1024), 1024, 1024, 3),  # wide ResNets
        ((40, 112), 384, 1024, 3),  # EfficientNet-Lite0, distillation target
        ((40, 112), 1024, 1024, 3),
        ((24, 40, 112), 30, 100, 3),
        ((16,), 7, 12, 5),
        ((4, 6), 8, 64, 1),
    ],
)
def test_equals_the_official_steps(channels, dim, level_dim, patch_size):
    backbone = Levels(*((2, c, 12 >> i, 8 >> i) for i, c in enumerate(channels)))
    features = PatchFeatures(backbone, dim, (96, 64), level_dim, patch_size)
    assert features.grid == (12, 8)
    torch.testing.assert_close(
        features(None), literal(backbone.levels, dim, level_dim, patch_size), rtol=2e-6, atol=1e-6
    )


def test_sizes_that_the_strides_do_not_divide():
    backbone = Levels((1, 40, 13, 17), (1, 112, 7, 9))
    features = PatchFeatures(backbone, 64, (97, 130))
    torch.testing.assert_close(features(None), literal(backbone.levels, 64, 1024, 3), rtol=2e-6, atol=1e-6)


def test_the_pooling_is_no_state():
    features = PatchFeatures(Levels((2, 16, 8, 8), (2, 32, 4, 4)), 64, (64, 64))
    assert not features.state_dict()
    assert {name.split(".")[0] for name, _ in features.named_buffers()} == {"pooling", "resizing"}


def test_dim_is_a_multiple_of_the_number_of_levels():
    with pytest.raises(ValueError, match="multiple of the number of levels, 2, not 7"):
        PatchFeatures(SimpleNamespace(channels=(8, 16)), 7, (64, 64))
