"""Folder layouts of data sets, one a file."""

from bench.datasets.layouts import btad, mvtec, mvtec_ad_2, visa_converted
from bench.datasets.layouts.layout import Layout

LAYOUTS: tuple[Layout, ...] = (mvtec_ad_2.LAYOUT, visa_converted.LAYOUT, btad.LAYOUT, mvtec.LAYOUT)
"""In the order in which they are tried: a folder is of the first that finds a scenario in it."""
