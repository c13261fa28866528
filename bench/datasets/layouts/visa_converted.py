"""VisA as its owners' converter writes it: MVTec AD's layout in a folder per protocol.

::

    VisA_pytorch/1cls/<scenario>/train/good/*   test/good/*   test/bad/*   ground_truth/bad/<stem>.png
"""

from bench.datasets.layouts.folders import FolderLayout

LAYOUT = FolderLayout(module=__name__, title="VisA, converted", within="1cls")
