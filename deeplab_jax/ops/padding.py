"""The paddings that DeepLab implementations use; they differ where a stride meets an even size."""

Padding = tuple[tuple[int, int], tuple[int, int]]
# An atrous rate: one number for both axes, or rows and columns apart.
Rate = int | tuple[int, int]


def rate_by_axis(rate: Rate) -> tuple[int, int]:
    """Returns the rate along H and along W."""
    return (rate, rate) if isinstance(rate, int) else tuple(rate)


def symmetric_padding(kernel_size: int, rate: Rate) -> Padding:
    """Returns the padding that keeps the size at stride 1, whatever the stride.

    A strided convolution with it equals the stride-1 convolution subsampled: what slim's ResNet and
    Xception do, and what atrous consistency needs.
    """
    totals = ((kernel_size - 1) * along for along in rate_by_axis(rate))
    return tuple((total // 2, total - total // 2) for total in totals)


def same_padding(size: tuple[int, int], kernel_size: int, stride: int, rate: Rate) -> Padding:
    """Returns TensorFlow's `SAME` padding for a map of `size` (H, W), as MobileNets use it.

    Equals `symmetric_padding` on odd sizes; on even sizes with stride 2 it lies one pixel off.
    """

    def one_axis(length: int, along: int) -> tuple[int, int]:
        output = -(-length // stride)
        total = max((output - 1) * stride + (kernel_size - 1) * along + 1 - length, 0)
        return total // 2, total - total // 2

    return tuple(map(one_axis, size, rate_by_axis(rate)))
