"""Form, depth multiplier and rounding of a MobileNet from the widths of its layers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_jax.backbones import mobilenet_v2, mobilenet_v3
from deeplab_jax.backbones.inverted_residual import rounded_width

Arrays = Mapping[str, np.ndarray]
# Of the published networks; a width rounded to a multiple of 8 does not tell.
MULTIPLIERS = (1.0, 0.25, 0.35, 0.5, 0.75, 1.3, 1.4)


def identify_mobilenet_v2(arrays: Arrays) -> Mapping[str, Any]:
    """Returns the keywords of a MobileNetV2; it may still differ where none fits all widths."""
    widths = _widths(arrays, "MobilenetV2")
    nominal = [32, *(layer.features for layer in mobilenet_v2.LAYERS)]
    for divisor in (1, 8):
        for factor in _multipliers(widths, nominal):
            scaled = [mobilenet_v2.scaled_width(width, factor, divisor) for width in nominal]
            if widths == scaled:
                found = {"backbone": "mobilenet_v2", "depth_multiplier": factor}
                return found if divisor == 1 else found | {"width_divisor": divisor}
    return {"backbone": "mobilenet_v2", "depth_multiplier": widths[0] / nominal[0]}


def identify_mobilenet_v3(arrays: Arrays) -> Mapping[str, Any]:
    """Returns the keywords of a MobileNetV3, as above."""
    widths = _widths(arrays, "MobilenetV3", last="MobilenetV3/Conv_1/weights")
    forms = {form: _nominal(form) for form in mobilenet_v3.ENDS}
    fitting = {form: nominal for form, nominal in forms.items() if len(nominal) == len(widths)}
    for form, nominal in fitting.items():
        for factor in _multipliers(widths, nominal):
            if widths == [rounded_width(width * factor) for width in nominal]:
                return {"backbone": f"mobilenet_v3_{form}", "depth_multiplier": factor}
    nearest = next(iter(fitting), "large")
    return {"backbone": f"mobilenet_v3_{nearest}", "depth_multiplier": widths[0] / 16}


def _nominal(form: str) -> list[int]:
    rows = mobilenet_v3.layers(form)
    last = mobilenet_v3.ENDS[form][3]
    return [mobilenet_v3.STEM_WIDTH, *(row.features for row in rows), last]


def _widths(arrays: Arrays, scope: str, last: str = "") -> list[int]:
    """Returns the output channels of stem, units and last layer, as far as they are there."""
    names = [f"{scope}/Conv/weights", f"{scope}/expanded_conv/project/weights"]
    names += [f"{scope}/expanded_conv_{n}/project/weights" for n in range(1, 32)]
    return [arrays[name].shape[-1] for name in (*names, last) if name in arrays]


def _multipliers(widths: Sequence[int], nominal: Sequence[int]) -> Iterator[float]:
    """Yields multipliers to try: where nothing is rounded, the last width tells it."""
    yield from MULTIPLIERS
    yield widths[-1] / nominal[-1]
