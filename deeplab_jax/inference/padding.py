"""The sizes that networks see: images are padded to them, never resized."""

from deeplab_jax.models import DeepLab

Size = tuple[int, int]


def padded_size(model: DeepLab, size: Size, minimum: Size | None = None) -> Size:
    """Returns the smallest size that suits the network and holds both sizes.

    That is k·output_stride + 1, where every map of the encoder has its corners on the image's; a
    network whose resizes do not align corners takes k·output_stride.

    Args:
      model: decides the output stride.
      size: (H, W) of the image or of the largest one.
      minimum: (H, W) that the result is not to fall below, if any.
    """
    stride = model.architecture.output_stride
    extra = 1 if model.architecture.align_corners else 0
    wanted = (max(pair) for pair in zip(size, minimum or size, strict=True))
    height, width = (-(-max(length - extra, 1) // stride) * stride + extra for length in wanted)
    return height, width
