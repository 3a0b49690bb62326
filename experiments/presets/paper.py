"""As the table says it: the published recipe on the published data."""

from experiments.presets.preset import Preset

PAPER = Preset("paper")
