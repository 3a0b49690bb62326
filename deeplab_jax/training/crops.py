"""Crop sizes that suit an output stride."""

from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import Architecture
from deeplab_jax.reporter import Reporter


def check_crop_size(
    crop_size: tuple[int, int], architecture: Architecture, strict: bool, reporter: Reporter
) -> None:
    """Complains of a crop that is not k·output_stride + 1, at which resized maps shift.

    Nothing is said with `align_corners=False`, whose grids need no such sizes.

    Raises:
      DeepLabError: under `strict`, otherwise the reporter hears a warning; or it has not two sides.
    """
    if len(crop_size) != 2:
        raise DeepLabError(
            f"augmentation.crop_size={crop_size} must be height and width, as in 513,513"
        )
    stride = architecture.output_stride
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
