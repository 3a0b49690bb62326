"""Inference options, and CRF parameters in files."""

import dataclasses
from pathlib import Path
from typing import Any

from deeplab_jax.crf.parameters import PARAMETERS, CRFParameters, check_parameters
from deeplab_jax.data.descriptors import parse_json, read_text
from deeplab_jax.declarations import ABOVE_ZERO, FRACTION, POSITIVE
from deeplab_jax.errors import DeepLabError, check_name, unknown_name
from deeplab_jax.files import as_path

# (height, width) in pixels.
Size = tuple[int, int]

# Value of `InferenceOptions.crf` that selects the published parameters for the architecture.
DEFAULT_CRF = "default"
MAX_SCALE = 4.0
# Number of dropout masks of MC dropout.
DEFAULT_SAMPLES = 8


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """Options of prediction and evaluation: output stride, scales, flip, tiles and CRF.

    Inference has these steps:

    1. The image is padded and, if `tile` is set, cut into tiles.
    2. For each scale and flip, the image is resized, the network is applied, and the logits are
       mirrored back and resized to full size.
    3. The results of all scales and flips are fused.
    4. Tiles are joined, and padding is cropped.
    5. The CRF refines the result.

    Attributes:
      output_stride: ratio of the image size to the size of the encoder output; None: as in
        training.
      scales: scale factors of the image. The results at all scales are fused. Scales other than
        (1,) replace the scales that some networks apply internally (`Architecture.multi_scale`).
      flip: whether to also fuse the results of the mirrored image.
      tile: (H, W) of the tiles in pixels, rounded up to a size that the network accepts; None:
        whole images.
      overlap: fraction of a tile, in [0, 0.5), that is discarded at each side, because it is only
        context. The result is that of the whole image with the same padding if this margin covers
        the radius of the receptive field, the only scale is 1, and the network has neither image
        pooling nor `multi_scale`.
      crf: CRF that refines the result:

        - None: no CRF.
        - `CRFParameters`: CRF with these parameters.
        - name in `crf.PARAMETERS`: CRF with published parameters.
        - `default`: CRF with the parameters that were published for the architecture. If none were
          published, those of the most similar architecture are used.

    Raises:
      DeepLabError: a value is invalid. The message states the legal values.
    """

    output_stride: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    tile: Size | None = None
    overlap: float = 0.25
    crf: str | CRFParameters | None = None

    def __post_init__(self) -> None:
        _check_scales(self.scales)
        tile = self.tile
        if tile is not None and not (len(tile) == 2 and all(map(POSITIVE.holds, tile))):
            raise DeepLabError(
                f"tile={tile!r} must be a height and a width, each a whole number of pixels above 0"
            )
        if not (FRACTION.holds(self.overlap) and self.overlap < 0.5):
            raise DeepLabError(
                f"overlap={self.overlap!r}, the fraction of a tile that is discarded at each side, "
                "must be in [0, 0.5)"
            )
        names = (DEFAULT_CRF, *PARAMETERS)
        if not isinstance(self.crf, str | CRFParameters | None):
            raise DeepLabError(
                f"crf={self.crf!r} must be None, {', '.join(map(repr, names))} or CRFParameters"
            )
        if isinstance(self.crf, str) and self.crf not in names:
            raise unknown_name("CRF parameter set", self.crf, names)
        if isinstance(self.crf, CRFParameters):
            check_parameters(self.crf)

    @property
    def fuses(self) -> bool:
        """True if `flip` is set or `scales` is not (1,), so that results are fused or resized."""
        return self.scales != (1.0,) or self.flip

    def describe(self) -> dict[str, Any]:
        """Returns the value of every field by name, for a JSON file."""
        crf = self.crf.describe() if isinstance(self.crf, CRFParameters) else self.crf
        values = dataclasses.asdict(self) | {"crf": crf}
        return values | {"scales": list(self.scales), "tile": self.tile and list(self.tile)}


def _check_scales(scales: Any) -> None:
    legal = f"different numbers above 0 and up to {MAX_SCALE:g}, as in (0.5, 0.75, 1)"
    if not isinstance(scales, tuple) or not scales:
        raise DeepLabError(f"scales={scales!r} must be a tuple of {legal}")
    for scale in scales:
        if not (ABOVE_ZERO.holds(scale) and scale <= MAX_SCALE):
            raise DeepLabError(f"scale {scale!r} is not legal; give {legal}")
    if len(set(scales)) < len(scales):
        shown = ", ".join(f"{scale:g}" for scale in scales)
        raise DeepLabError(f"scales {shown} contain one scale twice; give {legal}")


def read_crf_parameters(path: str | Path) -> CRFParameters:
    """Reads CRF parameters from a JSON file.

    Fields of `CRFParameters` with a default may be omitted.

    Args:
      path: JSON file with an object {field: value}, or a report of `crf-search`, in which
        `parameters` is such an object.

    Raises:
      DeepLabError: the file cannot be read or contains no such object, a field is unknown or
        missing, or a value is invalid.
    """
    path = as_path(path)
    found = parse_json(read_text(path, "CRF parameters"), path)
    values = found.get("parameters", found) if isinstance(found, dict) else found
    if not isinstance(values, dict):
        raise DeepLabError(
            f"{path}: expected an object of CRF parameters; give a JSON file that crf-search wrote"
        )
    fields = {field.name: field for field in dataclasses.fields(CRFParameters)}
    for name in values:
        check_name(f"{path}: CRF parameter", name, fields)
    needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in values]:
        raise DeepLabError(f"{path}: CRF parameters {', '.join(missing)} are missing")
    for name, value in values.items():
        # A string instead of a number would cause an error later, or none.
        is_text = fields[name].type in (str, "str")
        if isinstance(value, bool) or not isinstance(value, str if is_text else int | float):
            kind = "a string" if is_text else "a number"
            raise DeepLabError(f"{path}: CRF parameter {name} must be {kind}, got {value!r}")
    parameters = CRFParameters(**values)
    check_parameters(parameters)
    return parameters
