"""Comparison of models on the same images, written as one HTML file."""

from experiments.comparison.gathering import Compared, Comparison, Shown, compare
from experiments.comparison.page import html_page
from experiments.comparison.pictures import class_maps

__all__ = ["Compared", "Comparison", "Shown", "class_maps", "compare", "html_page"]
