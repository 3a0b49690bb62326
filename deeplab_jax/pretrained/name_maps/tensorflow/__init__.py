"""Names of the released DeepLab and slim networks: checkpoints, and graphs made from them.

The scopes are those of tensorflow/models: research/deeplab/model.py and core/*.py, research/slim/
nets/*.py.
"""

from deeplab_jax.pretrained.name_maps.convention import Convention
from deeplab_jax.pretrained.name_maps.tensorflow.identification import identify
from deeplab_jax.pretrained.name_maps.tensorflow.tables import rules

LEAVES = {
    "kernel": ("{convolution}/weights", "{convolution}/depthwise_weights"),
    "bias": ("{convolution}/biases",),
    "scale": ("{norm}/gamma",),
    "offset": ("{norm}/beta",),
    "mean": ("{norm}/moving_mean",),
    "var": ("{norm}/moving_variance",),
}
IGNORED = {
    r"/(Momentum|Adam(_1)?|RMSProp(_1)?|Adagrad|Ftrl(_1)?)$": "it belongs to the optimiser",
    r"^beta[12]_power(_\d+)?$": "it belongs to the optimiser",
    r"/(biased|local_step|renorm_\w+)$": "training needs it to average, and nothing else does",
    r"(^|/)(global_)?step$": "it counts training steps",
}

TENSORFLOW = Convention(
    name="the released TensorFlow code",
    identify=identify,
    rules=rules,
    leaves=LEAVES,
    norm="{convolution}/BatchNorm",
    ignored=IGNORED,
)
