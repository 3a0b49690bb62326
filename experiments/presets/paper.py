"""Preset that changes nothing: it runs a table's published recipe on the published dataset."""

from experiments.presets.preset import Preset

PAPER = Preset("paper")
