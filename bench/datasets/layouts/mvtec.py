"""The folder layout of MVTec AD, MVTec LOCO and every data set made to look like them.

::

    <collection>/<scenario>/train/good/*
                            validation/good/*                             (MVTec LOCO)
                            test/good/*   test/<defect>/*
                            ground_truth/<defect>/<stem>_mask.png         (or <stem>.png, or another image format)
                            ground_truth/<defect>/<stem>/000.png …        (MVTec LOCO)
                            defects_config.json                           (MVTec LOCO)
"""

from bench.datasets.layouts.folders import FolderLayout

LAYOUT = FolderLayout(module=__name__, title="MVTec AD", by_truth_alone=True)
