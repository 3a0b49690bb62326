"""What a dense CRF is told, and what the authors told theirs."""

import dataclasses
import math
import types
from collections.abc import Mapping

from deeplab_jax.errors import DeepLabError, unknown_name

NORMALIZATIONS = ("after", "symmetric")
FILTERINGS = ("auto", "direct", "lattice")

# Legal values of the numbers.
NUMBERS = {
    "bilateral_weight": "≥ 0",
    "bilateral_position_std": "> 0 pixels",
    "bilateral_color_std": "> 0 of 255 levels",
    "smoothness_weight": "≥ 0",
    "smoothness_position_std": "> 0 pixels",
}


@dataclasses.dataclass(frozen=True)
class CRFParameters:
    """The kernels of a dense CRF and how its mean field is computed.

    A pytree of its five numbers, so that a gradient with respect to it is one too: weights have
    gradients, standard deviations count as constants.

    Attributes:
      bilateral_weight: w1, of exp(−|Δp|² / 2σα² − |ΔI|² / 2σβ²).
      bilateral_position_std: σα in pixels.
      bilateral_color_std: σβ in levels of 0..255.
      smoothness_weight: w2, of exp(−|Δp|² / 2σγ²).
      smoothness_position_std: σγ in pixels.
      iterations: of the mean field.
      normalization: `after` divides each filtered map by Σ_j k(i, j), as the authors' code does;
        `symmetric` divides by its square root before and after, as pydensecrf does by default. The
        pixel itself is part of all sums.
      filtering: `direct` sums over all pairs of pixels; `lattice` is the authors' approximation by
        a permutohedral lattice; `auto` takes the direct sums up to 4,096 pixels and the lattice
        above, and the lattice for `symmetric`, which is there to repeat what pydensecrf gives.

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


# Bilateral weight, position and colour deviation, then the smoothness kernel's, which v1 and v2
# hold at 3, 3. The sets of v1 are a published copy of the authors' list, a line a released model.
PARAMETERS: Mapping[str, CRFParameters] = types.MappingProxyType(
    {
        "deeplab": CRFParameters(5.0, 50.0, 10.0),
        "deeplab_msc": CRFParameters(3.0, 95.0, 3.0),
        "deeplab_coco": CRFParameters(5.0, 67.0, 3.0),
        "deeplab_largefov": CRFParameters(4.0, 121.0, 5.0),
        "deeplab_msc_largefov": CRFParameters(4.0, 83.0, 5.0),
        "deeplab_coco_largefov": CRFParameters(5.0, 69.0, 5.0),
        "deeplab_msc_coco_largefov": CRFParameters(4.0, 59.0, 5.0),
        # As a widely used port of the v2 ResNet-101 sets it: σγ is 1.
        "deeplab_v2_resnet_101": CRFParameters(4.0, 67.0, 3.0, 3.0, 1.0),
        # The scripts that came with the v2 code: the one that runs the CRF, the one that searches.
        "deeplab_v2_script": CRFParameters(4.0, 49.0, 5.0),
        "deeplab_v2_search_script": CRFParameters(4.0, 51.0, 5.0),
    }
)


def crf_parameters(name: str) -> CRFParameters:
    """Returns the published set of this name.

    Raises:
      DeepLabError: if there is none; names the nearest.
    """
    if name not in PARAMETERS:
        raise unknown_name("CRF parameter set", name, PARAMETERS)
    return PARAMETERS[name]


def check_parameters(parameters: CRFParameters) -> None:
    """Raises a DeepLabError that names the field if one is outside what it may be."""
    for field, legal in NUMBERS.items():
        value = getattr(parameters, field)
        if isinstance(value, (int, float)) and not _holds(value, strictly=legal.startswith(">")):
            raise DeepLabError(f"CRF parameter {field} is {value!r}; legal: {legal}")
    if not isinstance(parameters.iterations, int) or parameters.iterations < 0:
        raise DeepLabError(f"CRF parameter iterations is {parameters.iterations!r}; legal: ≥ 0")
    if parameters.normalization not in NORMALIZATIONS:
        raise unknown_name("CRF normalization", str(parameters.normalization), NORMALIZATIONS)
    if parameters.filtering not in FILTERINGS:
        raise unknown_name("CRF filtering", str(parameters.filtering), FILTERINGS)


def _holds(value: float, strictly: bool) -> bool:
    return math.isfinite(value) and (value > 0 if strictly else value >= 0)
