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

TENSORFLOW = Convention(
    name="the released TensorFlow code",
    identify=identify,
    rules=rules,
    leaves=LEAVES,
    norm="{convolution}/BatchNorm",
)
