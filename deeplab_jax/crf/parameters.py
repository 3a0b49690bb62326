"""Parameters of a dense CRF, and the published values."""

import dataclasses
import math
import numbers
import types
from collections.abc import Mapping
from typing import Any

from deeplab_jax.errors import DeepLabError, check_name

NORMALIZATIONS = ("after", "symmetric")
FILTERINGS = ("auto", "direct", "lattice")

# Legal values of the numeric parameters.
NUMBERS = {
    "bilateral_weight": "≥ 0",
    "bilateral_position_std": "> 0 pixels",
    "bilateral_color_std": "> 0 (color levels of 0..255)",
    "smoothness_weight": "≥ 0",
    "smoothness_position_std": "> 0 pixels",
}


@dataclasses.dataclass(frozen=True)
class CRFParameters:
    """Parameters of the kernels and of mean-field inference in a dense CRF.

    The class is a pytree. Its leaves are the two weights and the three standard deviations, so
    `jax.grad` can differentiate with respect to them. The gradients of the standard deviations are
    always 0.

    Attributes:
      bilateral_weight: w1, weight of the bilateral kernel exp(−|Δp|² / 2σα² − |ΔI|² / 2σβ²), where
        Δp and ΔI are the differences in position and in RGB color of two pixels.
      bilateral_position_std: σα, in pixels.
      bilateral_color_std: σβ, in levels of 0..255.
      smoothness_weight: w2, weight of the smoothness kernel exp(−|Δp|² / 2σγ²).
      smoothness_position_std: σγ, in pixels.
      iterations: number of mean-field updates (default: 10).
      normalization: `after` divides each filtered map by Σ_j k(i, j), as the code of the DeepLab
        authors does; `symmetric` divides by the square root of this sum before and after filtering,
        as pydensecrf does by default. k is the kernel, and the sum includes the pixel i itself.
      filtering: `direct` sums over all pairs of pixels; `lattice` approximates the sum with a
        permutohedral lattice, as the code of the DeepLab authors and pydensecrf do. `auto` selects
        `direct` if `normalization` is `after` and the image has at most 4,096 pixels, else
        `lattice`.

    Source: Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge
    potentials", NIPS 2011; DeepLab v2, section 3.3.
    """

    bilateral_weight: float
    bilateral_position_std: float
    bilateral_color_std: float
    smoothness_weight: float = 3.0
    smoothness_position_std: float = 3.0
    iterations: int = 10
    normalization: str = "after"
    filtering: str = "auto"

    def describe(self) -> dict[str, Any]:
        """Returns the value of every field by name, for a JSON file.

        All numbers are Python numbers, also if the fields are numbers of NumPy or arrays.
        """
        floats = {name: float(getattr(self, name)) for name in NUMBERS}
        return dataclasses.asdict(self) | floats | {"iterations": int(self.iterations)}


# Published parameters. The first three numbers are weight, position standard deviation and color
# standard deviation of the bilateral kernel. The last two are weight and standard deviation of the
# smoothness kernel, which are 3 and 3 in DeepLab v1 and v2. The parameters of v1 are from a
# published copy of the DeepLab authors' list, which has one line per released model.
PARAMETERS: Mapping[str, CRFParameters] = types.MappingProxyType(
    {
        "deeplab": CRFParameters(5.0, 50.0, 10.0),
        "deeplab_msc": CRFParameters(3.0, 95.0, 3.0),
        "deeplab_coco": CRFParameters(5.0, 67.0, 3.0),
        "deeplab_largefov": CRFParameters(4.0, 121.0, 5.0),
        "deeplab_msc_largefov": CRFParameters(4.0, 83.0, 5.0),
        "deeplab_coco_largefov": CRFParameters(5.0, 69.0, 5.0),
        "deeplab_msc_coco_largefov": CRFParameters(4.0, 59.0, 5.0),
        # From a widely used port of v2 on ResNet-101; σγ is 1.
        "deeplab_v2_resnet_101": CRFParameters(4.0, 67.0, 3.0, 3.0, 1.0),
        # From two scripts in the v2 code: one runs the CRF, the other searches for parameters.
        "deeplab_v2_script": CRFParameters(4.0, 49.0, 5.0),
        "deeplab_v2_search_script": CRFParameters(4.0, 51.0, 5.0),
    }
)


def crf_parameters(name: str) -> CRFParameters:
    """Returns published CRF parameters by their name in `PARAMETERS`.

    Raises:
      DeepLabError: the name is unknown; the message suggests the most similar name.
    """
    check_name("CRF parameter set", name, PARAMETERS)
    return PARAMETERS[name]


def check_parameters(parameters: CRFParameters) -> None:
    """Checks that all CRF parameters are legal.

    Weights and standard deviations that are arrays, such as traced values, are not checked.

    Raises:
      DeepLabError: a parameter is illegal; the message names the first one and its legal values.
    """
    for field, legal in NUMBERS.items():
        value = getattr(parameters, field)
        # Numbers of NumPy are checked, too.
        is_number = isinstance(value, numbers.Real)
        if is_number and not _holds(float(value), strictly=legal.startswith(">")):
            raise DeepLabError(f"CRF parameter {field}={value!r} must be {legal}")
    iterations: Any = parameters.iterations
    if not isinstance(iterations, numbers.Integral) or iterations < 0:
        raise DeepLabError(f"CRF parameter iterations={iterations!r} must be an integer ≥ 0")
    for field, names in (("normalization", NORMALIZATIONS), ("filtering", FILTERINGS)):
        value = getattr(parameters, field)
        check_name(f"CRF {field}", str(value), names)


def _holds(value: float, strictly: bool) -> bool:
    return math.isfinite(value) and (value > 0 if strictly else value >= 0)
