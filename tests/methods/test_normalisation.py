import torch

from methods.common.normalisation import Normalise


def test_levels_and_fractions_agree_and_are_the_textbooks():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    mean, std = (0.2, 0.5, 0.7), (0.1, 0.2, 0.4)
    normalise = Normalise(mean, std)
    expected = (levels.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    for images in (levels, levels.float() / 255, levels.double() / 255):
        found = normalise(images)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(normalise((levels.float() / 255).bfloat16()), expected.float(), rtol=0.05, atol=0.05)


def test_the_constants_move_with_the_module_and_are_not_saved():
    normalise = Normalise()
    assert normalise.state_dict() == {}
    assert {buffer.device.type for buffer in normalise.to("meta").buffers()} == {"meta"}
