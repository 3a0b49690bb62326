"""Inference options as plain values, and CRF parameters read from files."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from deeplab_jax.crf.parameters import PARAMETERS, CRFParameters, check_parameters
from deeplab_jax.errors import DeepLabError, unknown_name

# (height, width) in pixels.
Size = tuple[int, int]

# Of `crf`: the published set that goes with the architecture.
DEFAULT_CRF = "default"
MAX_SCALE = 4.0


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """An inference strategy; predictors, evaluation and the commands' flags share it.

    The order is: pad or cut into tiles; for each scale and flip resize, apply the network, mirror
    back, resize the logits to full size; fuse; put tiles together; crop; refine by the CRF.

    Attributes:
      output_stride: pixels of the image to one of the encoder's map; None: as trained.
      scales: sizes of the image, relative, whose results are fused. Others than (1,) take the place
        of those that the architecture itself has (`multi_scale`).
      flip: fuse the results of the mirrored image, too.
      tile: (H, W) in pixels of the tiles that an image is cut into, rounded up to what suits the
        network; None: whole images.
      overlap: share of a tile's side, on each side, that only serves as surroundings: what the
        network says there is thrown away. At least the receptive field's radius makes tiles exact.
      crf: None: no CRF; `default`: the published parameters that go with the architecture; another
        name of `crf.PARAMETERS`; or parameters.

    Raises:
      DeepLabError: a value is illegal; says what is legal.
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
        if tile is not None and not (len(tile) == 2 and all(_is_positive(side) for side in tile)):
            raise DeepLabError(f"tile={tile!r} is not legal; give height and width in pixels")
        if not (_is_number(self.overlap) and 0 <= self.overlap < 0.5):
            raise DeepLabError(
                f"overlap={self.overlap!r} is not legal; give a share of the tile in [0, 0.5): it "
                "counts on each side"
            )
        names = (DEFAULT_CRF, *PARAMETERS)
        if isinstance(self.crf, str) and self.crf not in names:
            raise unknown_name("CRF parameter set", self.crf, names)

    @property
    def fuses(self) -> bool:
        """Whether anything but the network's own result on the image itself is asked for."""
        return self.scales != (1.0,) or self.flip

    def describe(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values."""
        values = dataclasses.asdict(self)
        return values | {
            "scales": list(self.scales),
            "tile": None if self.tile is None else list(self.tile),
        }


def _check_scales(scales: Any) -> None:
    legal = f"different numbers above 0 and up to {MAX_SCALE:g}, as in (0.5, 0.75, 1)"
    if not isinstance(scales, tuple) or not scales:
        raise DeepLabError(f"scales={scales!r} is not legal; give {legal}")
    for scale in scales:
        if not (_is_number(scale) and 0 < scale <= MAX_SCALE):
            raise DeepLabError(f"scale {scale!r} is not legal; give {legal}")
    if len(set(scales)) < len(scales):
        shown = ", ".join(f"{scale:g}" for scale in scales)
        raise DeepLabError(f"scales {shown} repeat one, which would count twice; give {legal}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def read_crf_parameters(path: str | Path) -> CRFParameters:
    """Returns the parameters in a JSON file: of `crf-search`, or just fields and their values.

    Fields of `CRFParameters` that have a default may be left out.

    Args:
      path: of an object of fields, or of one that holds it as `parameters`.

    Raises:
      DeepLabError: there is no such file, it is something else, or a value is illegal.
    """
    path = Path(path)
    if not path.is_file():
        raise DeepLabError(f"{path}: no such file of CRF parameters")
    try:
        found = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DeepLabError(f"{path}: no JSON: {error}") from None
    values = found.get("parameters", found) if isinstance(found, dict) else found
    if not isinstance(values, dict):
        raise DeepLabError(f"{path}: no object of CRF parameters; crf-search writes one")
    fields = {field.name: field for field in dataclasses.fields(CRFParameters)}
    for name in values:
        if name not in fields:
            raise unknown_name(f"{path}: CRF parameter", name, fields)
    needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in values]:
        raise DeepLabError(f"{path}: CRF parameters lack {', '.join(missing)}")
    for name, value in values.items():
        # Only numbers of JSON: NaN and texts in their place fail later or nowhere.
        is_text = fields[name].type in (str, "str")
        if isinstance(value, bool) or not isinstance(value, str if is_text else int | float):
            raise DeepLabError(f"{path}: CRF parameter {name} is {value!r}, of the wrong kind")
    parameters = CRFParameters(**values)
    check_parameters(parameters)
    return parameters
