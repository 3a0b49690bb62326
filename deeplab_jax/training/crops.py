"""Crop sizes that suit an output stride."""

from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.padding import size_step
from deeplab_jax.models import Architecture
from deeplab_jax.reporter import Reporter


def check_crop_size(
    crop_size: tuple[int, int], architecture: Architecture, strict: bool, reporter: Reporter
) -> None:
    """Warns of a crop that is not k·output_stride + 1, at which resized maps shift.

    A network that sees the image at several scales needs it at each of them: with (1, 0.75, 0.5)
    and output stride 8 that is k·32 + 1. With `align_corners=False` the grids need no such sizes.

    Raises:
      DeepLabError: under `strict`, otherwise the reporter hears a warning; or it has not two sides.
    """
    if len(crop_size) != 2:
        raise DeepLabError(
            f"augmentation.crop_size={crop_size} must be height and width, as in 513,513"
        )
    stride = size_step(architecture)
    if not architecture.align_corners or all((side - 1) % stride == 0 for side in crop_size):
        return
    lower = tuple((side - 1) // stride * stride + 1 for side in crop_size)
    upper = tuple(-(-(side - 1) // stride) * stride + 1 for side in crop_size)
    text = (
        f"augmentation.crop_size={_shown(crop_size)} is not k·{stride}+1, so maps shift when they "
        f"are resized; nearest that are: {_shown(lower)} and {_shown(upper)}"
    )
    if strict:
        raise DeepLabError(text)
    reporter.warning(text)


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
