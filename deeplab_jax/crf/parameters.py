"""Parameters of a dense CRF, and the published sets."""

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
    """Kernels and mean-field inference of a dense CRF.

    A pytree of its five numbers, so that a gradient with respect to it is one too: weights have
    gradients, standard deviations are constants.

    Attributes:
      bilateral_weight: w1, weight of exp(−|Δp|² / 2σα² − |ΔI|² / 2σβ²).
      bilateral_position_std: σα in pixels.
      bilateral_color_std: σβ in levels of 0..255.
      smoothness_weight: w2, weight of exp(−|Δp|² / 2σγ²).
      smoothness_position_std: σγ in pixels.
      iterations: number of mean-field updates (default: 10).
      normalization: `after` divides each filtered map by Σ_j k(i, j), as the authors' code does;
        `symmetric` divides by its square root before and after, as pydensecrf does by default. The
        sums include the pixel itself.
      filtering: `direct` sums over all pairs of pixels; `lattice` is the authors' approximation by
        a permutohedral lattice; `auto` uses direct sums up to 4,096 pixels and the lattice
        above, and always the lattice for `symmetric`, to reproduce pydensecrf.

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


# Bilateral weight, deviations of position and color, then weight and deviation of the smoothness
# kernel, which are 3 and 3 in v1 and v2. The sets of v1 are a published copy of the authors' list,
# one line per released model.
PARAMETERS: Mapping[str, CRFParameters] = types.MappingProxyType(
    {
        "deeplab": CRFParameters(5.0, 50.0, 10.0),
        "deeplab_msc": CRFParameters(3.0, 95.0, 3.0),
        "deeplab_coco": CRFParameters(5.0, 67.0, 3.0),
        "deeplab_largefov": CRFParameters(4.0, 121.0, 5.0),
        "deeplab_msc_largefov": CRFParameters(4.0, 83.0, 5.0),
        "deeplab_coco_largefov": CRFParameters(5.0, 69.0, 5.0),
        "deeplab_msc_coco_largefov": CRFParameters(4.0, 59.0, 5.0),
        # The values of a widely used port of the v2 ResNet-101; σγ is 1.
        "deeplab_v2_resnet_101": CRFParameters(4.0, 67.0, 3.0, 3.0, 1.0),
        # The two scripts of the v2 code: one runs the CRF, the other searches parameters.
        "deeplab_v2_script": CRFParameters(4.0, 49.0, 5.0),
        "deeplab_v2_search_script": CRFParameters(4.0, 51.0, 5.0),
    }
)


def crf_parameters(name: str) -> CRFParameters:
    """Returns the published set with this name.

    Raises:
      DeepLabError: there is no such set; names the nearest.
    """
    if name not in PARAMETERS:
        raise unknown_name("CRF parameter set", name, PARAMETERS)
    return PARAMETERS[name]


def check_parameters(parameters: CRFParameters) -> None:
    """Raises a DeepLabError that names the first field with an illegal value."""
    for field, legal in NUMBERS.items():
        value = getattr(parameters, field)
        if isinstance(value, (int, float)) and not _holds(value, strictly=legal.startswith(">")):
            raise DeepLabError(f"CRF parameter {field} is {value!r}; legal: {legal}")
    if not isinstance(parameters.iterations, int) or parameters.iterations < 0:
        raise DeepLabError(f"CRF parameter iterations is {parameters.iterations!r}; legal: ≥ 0")
    for field, names in (("normalization", NORMALIZATIONS), ("filtering", FILTERINGS)):
        value = getattr(parameters, field)
        if value not in names:
            raise unknown_name(f"CRF {field}", str(value), names)


def _holds(value: float, strictly: bool) -> bool:
    return math.isfinite(value) and (value > 0 if strictly else value >= 0)
