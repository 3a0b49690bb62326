"""Inference options as plain values, and CRF parameters read from files."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from deeplab_jax.crf.parameters import PARAMETERS, CRFParameters, check_parameters
from deeplab_jax.declarations import ABOVE_ZERO, FRACTION, POSITIVE
from deeplab_jax.errors import DeepLabError, unknown_name

# (height, width) in pixels.
Size = tuple[int, int]

# Value of `crf` that selects the published parameters of the architecture.
DEFAULT_CRF = "default"
MAX_SCALE = 4.0


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """An inference strategy, shared by predictors, evaluation and the flags of commands.

    The steps are: pad the image or cut it into tiles; for each scale and flip resize, apply the
    network, mirror back and resize the logits to full size; fuse; join the tiles; crop; refine by
    the CRF.

    Attributes:
      output_stride: ratio of image to feature map resolution; None uses that of training.
      scales: relative image sizes whose results are fused. Scales other than (1,) replace those of
        the architecture (`multi_scale`).
      flip: whether to fuse the results of the mirrored image as well.
      tile: (H, W) of the tiles in pixels, rounded up to a size that the network accepts; None
        predicts whole images.
      overlap: fraction of a tile's side, in [0, 0.5), that is discarded on each side and only
        serves as context. Tiles are exact where it covers the radius of the receptive field.
      crf: None disables the CRF; `default` selects the published parameters of the architecture;
        otherwise another name of `crf.PARAMETERS`, or parameters.

    Raises:
      DeepLabError: a value is invalid; the message states the legal ones.
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
            raise DeepLabError(f"tile={tile!r} is not legal; give height and width in pixels")
        if not (FRACTION.holds(self.overlap) and self.overlap < 0.5):
            raise DeepLabError(
                f"overlap={self.overlap!r} is not legal; give a fraction of the tile in [0, 0.5), "
                "which is discarded on each side"
            )
        names = (DEFAULT_CRF, *PARAMETERS)
        if isinstance(self.crf, str) and self.crf not in names:
            raise unknown_name("CRF parameter set", self.crf, names)

    @property
    def fuses(self) -> bool:
        """Returns whether several results are fused, or one at another scale is used."""
        return self.scales != (1.0,) or self.flip

    def describe(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values."""
        values = dataclasses.asdict(self)
        return values | {"scales": list(self.scales), "tile": self.tile and list(self.tile)}


def _check_scales(scales: Any) -> None:
    legal = f"different numbers above 0 and up to {MAX_SCALE:g}, as in (0.5, 0.75, 1)"
    if not isinstance(scales, tuple) or not scales:
        raise DeepLabError(f"scales={scales!r} is not legal; give {legal}")
    for scale in scales:
        if not (ABOVE_ZERO.holds(scale) and scale <= MAX_SCALE):
            raise DeepLabError(f"scale {scale!r} is not legal; give {legal}")
    if len(set(scales)) < len(scales):
        shown = ", ".join(f"{scale:g}" for scale in scales)
        raise DeepLabError(f"scales {shown} hold one scale twice; give {legal}")


def read_crf_parameters(path: str | Path) -> CRFParameters:
    """Returns the CRF parameters that a JSON file holds.

    Fields of `CRFParameters` that have a default may be absent.

    Args:
      path: file with an object of fields and values, or the report of `crf-search`, which holds
        that object as `parameters`.

    Raises:
      DeepLabError: the file does not exist, is not such an object, or holds an invalid value.
    """
    path = Path(path)
    if not path.is_file():
        raise DeepLabError(f"{path}: no such file of CRF parameters")
    try:
        found = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DeepLabError(f"{path}: invalid JSON: {error}") from None
    values = found.get("parameters", found) if isinstance(found, dict) else found
    if not isinstance(values, dict):
        raise DeepLabError(f"{path}: expected an object of CRF parameters; crf-search writes one")
    fields = {field.name: field for field in dataclasses.fields(CRFParameters)}
    for name in values:
        if name not in fields:
            raise unknown_name(f"{path}: CRF parameter", name, fields)
    needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in values]:
        raise DeepLabError(f"{path}: CRF parameters {', '.join(missing)} are missing")
    for name, value in values.items():
        # NaN and strings in place of numbers would fail later, or nowhere.
        is_text = fields[name].type in (str, "str")
        if isinstance(value, bool) or not isinstance(value, str if is_text else int | float):
            kind = "a string" if is_text else "a number"
            raise DeepLabError(f"{path}: CRF parameter {name} must be {kind}, got {value!r}")
    parameters = CRFParameters(**values)
    check_parameters(parameters)
    return parameters
