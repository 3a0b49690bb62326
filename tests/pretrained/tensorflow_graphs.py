"""A MobileNetV2 DeepLab as a TensorFlow graph of constants, in the manner of the released ones."""

import numpy as np
import official_variables
import tensorflow

tf = tensorflow.compat.v1

EPSILONS = {"MobilenetV2": 1e-3}
OUTPUT_STRIDE, SIZE = 16, 65
# Stride and rate of every unit at output stride 16.
UNITS = [(1, 1), (2, 1), (1, 1), (2, 1), (1, 1), (1, 1), (2, 1), *[(1, 1)] * 7, *[(1, 2)] * 3]


def small_variables(num_classes=5):
    """Values of a MobileNetV2 DeepLab at depth multiplier 0.25, with statistics of their own."""
    shapes = official_variables.deeplab(
        lambda variables: official_variables.mobilenet_v2(variables, 0.25, 1),
        num_classes,
        branches=0,
    )
    generator = np.random.default_rng(7)
    arrays = {}
    for name, shape in shapes.items():
        leaf = name.rpartition("/")[2]
        values = generator.standard_normal(shape)
        if leaf in ("gamma", "moving_variance"):
            values = 0.5 + generator.random(shape)
        elif leaf in ("weights", "depthwise_weights"):
            taps = shape[:2] if leaf == "depthwise_weights" else shape[:3]
            values *= np.sqrt(2 / np.prod(taps))
        arrays[name] = np.asarray(values, np.float32)
    return arrays


class Graph:
    """Layers on constants; with `folded`, normalisations are within the convolutions."""

    def __init__(self, arrays, folded=False):
        self.arrays = arrays
        self.folded = folded

    def layer(self, inputs, scope, stride=1, rate=1, activation=tf.nn.relu6):
        depthwise = f"{scope}/depthwise_weights" in self.arrays
        name = f"{scope}/{'depthwise_weights' if depthwise else 'weights'}"
        kernel, normalized = self.arrays[name], f"{scope}/BatchNorm/gamma" in self.arrays
        if normalized and self.folded:
            scale, offset = self._affine(scope)
            kernel = kernel * (scale[:, None] if depthwise else scale)
        kernel = tf.identity(tf.constant(kernel, name=name), name=f"{name}/read")
        outputs = self._convolve(inputs, kernel, depthwise, stride, rate, scope)
        if normalized and self.folded:
            outputs = tf.nn.bias_add(outputs, tf.constant(offset, name=f"{scope}/Conv2D_bn_offset"))
        elif normalized:
            outputs = self._normalize(outputs, scope)
        else:
            bias = tf.constant(self.arrays[f"{scope}/biases"], name=f"{scope}/biases")
            outputs = tf.nn.bias_add(outputs, bias)
        return outputs if activation is None else activation(outputs)

    def _convolve(self, inputs, kernel, depthwise, stride, rate, scope):
        convolve = tf.nn.depthwise_conv2d if depthwise else tf.nn.conv2d
        strides = [1, stride, stride, 1]
        if rate == 1:
            return convolve(inputs, kernel, strides=strides, padding="SAME", name=f"{scope}/op")
        # As TensorFlow 1 had it: cut up, convolve, join.
        more = -int(inputs.shape[1]) % rate
        cut = tf.raw_ops.SpaceToBatchND(
            input=inputs, block_shape=[rate] * 2, paddings=[[rate, rate + more]] * 2
        )
        done = convolve(cut, kernel, strides=strides, padding="VALID", name=f"{scope}/op")
        return tf.raw_ops.BatchToSpaceND(input=done, block_shape=[rate] * 2, crops=[[0, more]] * 2)

    def _affine(self, scope):
        gamma, beta, mean, variance = self._statistics(scope)
        scale = gamma / np.sqrt(variance + EPSILONS.get(scope.partition("/")[0], 1e-5))
        return scale, beta - mean * scale

    def _normalize(self, inputs, scope):
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        constants = [
            tf.constant(value, name=f"{scope}/BatchNorm/{name}")
            for name, value in zip(names, self._statistics(scope), strict=True)
        ]
        epsilon = EPSILONS.get(scope.partition("/")[0], 1e-5)
        return tf.nn.fused_batch_norm(
            inputs, *constants, epsilon=epsilon, is_training=False, name=f"{scope}/BatchNorm/op"
        )[0]

    def _statistics(self, scope):
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        return [self.arrays[f"{scope}/BatchNorm/{name}"] for name in names]


def deeplab_graph(arrays, folded=False):
    """Returns a frozen DeepLab for images of any size up to 65 × 65, padded to that within."""
    with tf.Graph().as_default() as graph:
        image = tf.placeholder(tf.uint8, [1, None, None, 3], name="ImageTensor")
        shape = tf.shape(image)
        pixels = tf.cast(image, tf.float32)
        padding = [[0, 0], [0, SIZE - shape[1]], [0, SIZE - shape[2]], [0, 0]]
        pixels = tf.pad(pixels, padding, constant_values=127.5)
        pixels.set_shape([1, SIZE, SIZE, 3])
        layers = Graph(arrays, folded)
        features = _mobilenet_v2(layers, pixels * (2 / 255) - 1)
        scores = _head(layers, features)
        logits = tf.image.resize_bilinear(scores, [SIZE, SIZE], align_corners=True)
        tf.identity(logits, name="Logits")
    return graph


def _mobilenet_v2(layers, hidden):
    hidden = layers.layer(hidden, "MobilenetV2/Conv", stride=2)
    for number, (stride, rate) in enumerate(UNITS):
        scope = "MobilenetV2/expanded_conv" + (f"_{number}" if number else "")
        inputs = hidden
        if number:
            hidden = layers.layer(hidden, f"{scope}/expand")
        hidden = layers.layer(hidden, f"{scope}/depthwise", stride, rate)
        hidden = layers.layer(hidden, f"{scope}/project", activation=None)
        # layer_15 lost its stride, and has no shortcut for it: its widths differ.
        if stride == 1 and inputs.shape[-1] == hidden.shape[-1]:
            hidden = hidden + inputs
    return hidden


def _head(layers, features):
    side = (SIZE - 1) // OUTPUT_STRIDE + 1
    pooled = tf.nn.avg_pool(features, [1, side, side, 1], [1, 1, 1, 1], "VALID")
    pooled = layers.layer(pooled, "image_pooling", activation=tf.nn.relu)
    pooled = tf.image.resize_bilinear(pooled, [side, side], align_corners=True)
    pointwise = layers.layer(features, "aspp0", activation=tf.nn.relu)
    joined = tf.concat([pooled, pointwise], 3)
    projected = layers.layer(joined, "concat_projection", activation=tf.nn.relu)
    return layers.layer(projected, "logits/semantic", activation=None)
