"""What a predictor tells of one image; shows itself in a notebook."""

import base64
import dataclasses
import html

import numpy as np

from deeplab_jax.visualize import legend_strip, overlay, png_bytes
from deeplab_jax.visualize.class_maps import Color

# Narrower pictures are widened with white, so that names fit under them.
MIN_PICTURE_WIDTH = 240


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """The classes of an image's pixels.

    Attributes:
      image: uint8 [H, W, 3], what was given.
      class_map: int32 [H, W].
      probabilities: float32 [H, W, num_classes], each pixel's sum to 1.
      class_names: one a class.
      palette: RGB 0..255, one a class.
    """

    image: np.ndarray
    class_map: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]
    palette: tuple[Color, ...]

    @property
    def shares(self) -> dict[str, float]:
        """Share of the pixels, 0..1, of each class that occurs, the largest first."""
        counts = np.bincount(self.class_map.ravel(), minlength=len(self.class_names))
        order = np.argsort(-counts, kind="stable")
        return {
            self.class_names[index]: counts[index] / counts.sum()
            for index in order[: np.count_nonzero(counts)].tolist()
        }

    @property
    def legend(self) -> dict[str, Color]:
        """Colour of each class that occurs, the largest first."""
        colors = dict(zip(self.class_names, self.palette, strict=True))
        return {name: colors[name] for name in self.shares}

    @property
    def overlay(self) -> np.ndarray:
        """The image under the colours of its classes; uint8 [H, W, 3]."""
        return overlay(self.image, self.class_map, self.palette)

    def _repr_png_(self) -> bytes:
        picture = self.overlay
        missing = max(0, MIN_PICTURE_WIDTH - picture.shape[1])
        picture = np.pad(picture, ((0, 0), (0, missing), (0, 0)), constant_values=255)
        return png_bytes(np.concatenate([picture, legend_strip(self.legend, picture.shape[1])]))

    def _repr_html_(self) -> str:
        encoded = base64.b64encode(png_bytes(self.overlay)).decode("ascii")
        entries = " &nbsp; ".join(
            f'<span style="color:rgb{self.legend[name]}">&#9632;</span> '
            f"{html.escape(name)} {100 * share:.1f}&thinsp;%"
            for name, share in self.shares.items()
        )
        return f'<img src="data:image/png;base64,{encoded}" alt="overlay"><br>{entries}'
