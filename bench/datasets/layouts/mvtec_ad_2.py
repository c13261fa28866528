"""The folder layout of MVTec AD 2.

::

    mvtec_ad_2/<scenario>/train/good/*   validation/good/*
                          test_public/good/*   test_public/bad/*   test_public/ground_truth/bad/<stem>_mask.png
                          test_private/*   test_private_mixed/*     (labels with the owners)

A stem ends with the light that its image was taken under: ``000_regular``, ``000_overexposed``, ``000_shift_1``.
"""

import re

from bench.datasets.layouts.folders import FolderLayout

LAYOUT = FolderLayout(
    module=__name__,
    title="MVTec AD 2",
    test="test_public",
    truth="test_public/ground_truth",
    unlabelled=("test_private", "test_private_mixed"),
    condition=re.compile(r"^\d+_(?P<condition>[a-z]+(_\d+)?)$"),
)
