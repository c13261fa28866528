"""What DSR minimises (section 3.3, and its official code)."""

import torch
from torch import Tensor

GAMMA = 2
SMOOTHING = 1e-5
IMAGE_WEIGHT = 10
"""Of the reconstructed image's squared error, relative to those of the features."""


def focal(probabilities: Tensor, mask: Tensor) -> Tensor:
    """Focal loss of probabilities, mean over pixels: ``-(1 - p)² log p``, both classes weighted alike.

    As in the official code, labels are smoothed: ``p = (1 - s) p_true + s p_other + s`` with s = 1e-5.

    Args:
        probabilities: Of the classes normal and anomalous, (B, 2, H, W).
        mask: Which pixels are anomalous, 0 or 1, (B, 1, H, W).
    """
    anomalous = mask.bool()[:, 0]
    normal_probability, anomalous_probability = probabilities.unbind(1)
    true = torch.where(anomalous, anomalous_probability, normal_probability)
    other = torch.where(anomalous, normal_probability, anomalous_probability)
    smoothed = (1 - SMOOTHING) * true + SMOOTHING * other + SMOOTHING
    return -((1 - smoothed) ** GAMMA * smoothed.log()).mean()
