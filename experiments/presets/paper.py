"""Preset that runs a table as published: the published recipe on the published dataset."""

from experiments.presets.preset import Preset

PAPER = Preset("paper")
