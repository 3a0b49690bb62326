import pytest
from reporters import RecordingReporter

from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import Architecture
from deeplab_jax.training.checks import check_crop_size


def warnings_of(crop_size, strict=False, **options):
    listener = RecordingReporter()
    architecture = Architecture("mobilenet_v2", **options)
    check_crop_size(crop_size, architecture, strict, listener)
    return listener.warnings


@pytest.mark.parametrize(
    ("crop_size", "options"),
    [
        ((513, 513), {}),
        ((65, 97), {}),
        ((193, 257), {"output_stride": 32}),
        ((9, 17), {"output_stride": 8}),
        ((512, 512), {"align_corners": False}),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_suitable_crops_are_silent(crop_size, options, strict):
    assert warnings_of(crop_size, strict, **options) == []


@pytest.mark.parametrize(
    ("crop_size", "nearest"),
    [
        ((512, 513), "nearest sizes: 497×513 and 513×513"),
        ((64, 80), "nearest sizes: 49×65 and 65×81"),
        ((9, 17), "nearest sizes: 1×17 and 17×17"),
    ],
)
def test_unsuitable_crops_are_reported_with_the_nearest_suitable(crop_size, nearest):
    (warning,) = warnings_of(crop_size)
    assert f"{crop_size[0]}×{crop_size[1]} is not of the form k·16+1" in warning
    assert nearest in warning
    with pytest.raises(DeepLabError, match=nearest):
        warnings_of(crop_size, strict=True)
