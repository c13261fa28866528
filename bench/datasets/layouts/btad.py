"""The folder layout of BTAD.

::

    BTech_Dataset_transformed/<scenario>/train/ok/*   test/ok/*   test/ko/*   ground_truth/ko/<stem>.png (or .bmp)
"""

from bench.datasets.layouts.folders import FolderLayout

LAYOUT = FolderLayout(module=__name__, title="BTAD", normal="ok")
