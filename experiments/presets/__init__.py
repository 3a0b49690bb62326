"""Presets, which run tables as published, or scale them down to a small dataset and machine."""

from deeplab_jax.errors import unknown_name
from experiments.presets.camvid import CAMVID
from experiments.presets.camvid_gpu import CAMVID_GPU
from experiments.presets.paper import PAPER
from experiments.presets.preset import Preset
from experiments.presets.smoke import SMOKE
from experiments.presets.voc_subset import VOC_SUBSET

PRESETS = {preset.name: preset for preset in (SMOKE, CAMVID, CAMVID_GPU, VOC_SUBSET, PAPER)}

__all__ = ["PRESETS", "Preset", "find_preset"]


def find_preset(name: str) -> Preset:
    """Returns a preset, given its name.

    Raises:
      DeepLabError: there is no such preset.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]
