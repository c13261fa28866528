"""RD++ (Tien et al., CVPR 2023)."""
