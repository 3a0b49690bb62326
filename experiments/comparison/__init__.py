"""Models side by side on the same images, as one HTML file."""

from experiments.comparison.gathering import Compared, Comparison, Shown, compare
from experiments.comparison.page import html_page

__all__ = ["Compared", "Comparison", "Shown", "compare", "html_page"]
