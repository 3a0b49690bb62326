import json

import pytest

from deeplab_jax.crf import CRFParameters, crf_parameters
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import InferenceOptions
from deeplab_jax.inference.refinement import find_parameters
from deeplab_jax.models.architectures import resolve


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"scales": ()}, "different numbers above 0"),
        ({"scales": (0.5, 0)}, "scale 0 is not legal; give different numbers above 0"),
        ({"scales": (float("nan"),)}, "scale nan"),
        ({"scales": (1.0, -1)}, "scale -1"),
        ({"scales": (5,)}, "up to 4"),
        ({"scales": ("1",)}, "scale '1'"),
        ({"scales": 0.5}, "scales=0.5"),
        ({"scales": (0.5, 1, 0.5)}, "scales 0.5, 1, 0.5 contain one scale twice"),
        ({"tile": (0, 5)}, "a height and a width"),
        ({"tile": (5,)}, "a height and a width"),
        ({"tile": (5.5, 5)}, "a height and a width"),
        ({"overlap": 0.5}, r"\[0, 0.5\)"),
        ({"overlap": -0.1}, r"\[0, 0.5\)"),
        ({"overlap": float("nan")}, r"\[0, 0.5\)"),
        ({"crf": "deeplab_largefow"}, "did you mean 'deeplab_largefov'"),
        ({"crf": "defalt"}, "did you mean 'default'"),
        ({"crf": True}, "crf=True must be None, 'default'"),
        ({"crf": {"bilateral_weight": 4}}, "or CRFParameters"),
        ({"crf": CRFParameters(-1, 50, 5)}, "bilateral_weight=-1 must be ≥ 0"),
    ],
)
def test_errors_state_the_legal_values(options, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        InferenceOptions(**options)


def test_options_convert_to_json_and_know_if_they_fuse():
    options = InferenceOptions(8, (0.5, 1), True, (65, 33), 0.1, "deeplab")
    assert json.loads(json.dumps(options.describe())) == options.describe()
    assert options.describe()["tile"] == [65, 33]
    assert InferenceOptions(crf=CRFParameters(1, 2, 3)).describe()["crf"]["bilateral_weight"] == 1
    assert options.fuses
    assert InferenceOptions(flip=True).fuses
    assert not InferenceOptions(8, (1,), tile=(9, 9)).fuses


@pytest.mark.parametrize(
    ("architecture", "keywords", "expected"),
    [
        ("deeplab_v1", {}, "deeplab_largefov"),
        ("deeplab_v1", {"decoder": "msc"}, "deeplab_msc_largefov"),
        ("deeplab_v1", {"fov": "4x4"}, "deeplab"),
        ("deeplab_v1", {"backbone": "resnet_50", "decoder": "msc"}, "deeplab_v2_resnet_101"),
        ("deeplab_v2", {}, "deeplab_v2_resnet_101"),
        ("deeplab_v2", {"backbone": "vgg_16"}, "deeplab_v2_script"),
        ("deeplab_v3plus", {}, "deeplab_v2_resnet_101"),
    ],
)
def test_the_default_crf_goes_with_the_architecture(architecture, keywords, expected):
    resolved = resolve(architecture, **keywords)
    found = find_parameters(InferenceOptions(crf="default"), resolved)
    assert found == crf_parameters(expected)
    assert find_parameters(InferenceOptions(), resolved) is None
    own = CRFParameters(1.0, 2.0, 3.0)
    assert find_parameters(InferenceOptions(crf=own), resolved) is own
