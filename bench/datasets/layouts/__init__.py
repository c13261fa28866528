"""Folder layouts of data sets, one a file."""

from bench.datasets.layouts import (
    btad,
    dagm,
    elpv,
    kolektor_sdd,
    kolektor_sdd2,
    listed,
    mvtec,
    mvtec_ad_2,
    real_iad,
    visa,
    visa_converted,
)
from bench.datasets.layouts.layout import Layout

LAYOUTS: tuple[Layout, ...] = (
    listed.LAYOUT,
    visa.LAYOUT,
    real_iad.LAYOUT,
    kolektor_sdd.LAYOUT,
    kolektor_sdd2.LAYOUT,
    dagm.LAYOUT,
    elpv.LAYOUT,
    mvtec_ad_2.LAYOUT,
    visa_converted.LAYOUT,
    btad.LAYOUT,
    mvtec.LAYOUT,
)
"""In the order in which they are tried: a folder is of the first that finds a scenario in it."""
