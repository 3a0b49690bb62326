"""The paddings that DeepLab implementations use; they differ where a stride meets an even size."""

Padding = tuple[tuple[int, int], tuple[int, int]]


def symmetric_padding(kernel_size: int, rate: int) -> Padding:
    """Returns the padding that keeps the size at stride 1, whatever the stride.

    A strided convolution with it equals the stride-1 convolution subsampled: what slim's ResNet and
    Xception do, and what atrous consistency needs.
    """
    total = (kernel_size - 1) * rate
    return ((total // 2, total - total // 2),) * 2


def same_padding(size: tuple[int, int], kernel_size: int, stride: int, rate: int) -> Padding:
    """Returns TensorFlow's `SAME` padding for a map of `size` (H, W), as MobileNets use it.

    Equals `symmetric_padding` on odd sizes; on even sizes with stride 2 it lies one pixel off.
    """

    def one_axis(length: int) -> tuple[int, int]:
        output = -(-length // stride)
        total = max((output - 1) * stride + (kernel_size - 1) * rate + 1 - length, 0)
        return total // 2, total - total // 2

    return one_axis(size[0]), one_axis(size[1])
