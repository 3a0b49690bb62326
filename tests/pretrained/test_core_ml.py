"""Core ML networks: Apple's published one, and each way of storing weights."""

import numpy as np
import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained import convert
from deeplab_jax.pretrained.readers.core_ml import _schema, read_core_ml

pytest.importorskip("coremltools", reason="coremltools, of the coreml extra, is not installed")
KERNEL = np.arange(2 * 3 * 1 * 2, dtype=np.float32).reshape(2, 3, 1, 2) / 4


def test_apples_published_network(shared):
    conversion = convert(shared / "weights" / "deeplabv3_mnv2_voc_513_lut8.mlmodel")
    options = conversion.description.create_model().architecture
    assert (options.backbone, options.head, options.output_stride) == ("mobilenet_v2", "pooling", 8)
    assert options.pooling_crop == conversion.description.inference_size == (513, 513)
    assert not conversion.assignment.unused


def model_file(path, store):
    """Writes a network of one convolution, whose kernel `store` puts into a weights message."""
    model = _schema().Model()
    model.specificationVersion = 3
    image = model.description.input.add()
    image.name = "image"
    image.type.imageType.width, image.type.imageType.height = 9, 7
    layer = model.neuralNetwork.layers.add()
    layer.name = "MobilenetV2/Conv/Conv2D:0"
    layer.input.append("image")
    layer.output.append("scores")
    options = layer.convolution
    options.outputChannels, options.kernelChannels = KERNEL.shape[:2]
    options.kernelSize.extend(KERNEL.shape[2:])
    options.stride.extend((2, 2))
    options.nGroups = 1
    options.same.SetInParent()
    store(options.weights)
    path.write_bytes(model.SerializeToString())
    return path


def as_floats(weights):
    weights.floatValue.extend(KERNEL.ravel().tolist())


def as_halves(weights):
    weights.float16Value = KERNEL.astype("<f2").tobytes()


def as_table(bits):
    """Stores indices of `bits` bits each into a table, packed from the highest bit."""

    def store(weights):
        values, codes = np.unique(KERNEL, return_inverse=True)
        table = np.zeros(2**bits)
        table[: values.size] = values
        weights.quantization.numberOfBits = bits
        weights.quantization.lookupTableQuantization.floatValue.extend(table.tolist())
        text = "".join(f"{code:0{bits}b}" for code in codes.ravel())
        weights.rawValue = bytes(
            int(text[n : n + 8].ljust(8, "0"), 2) for n in range(0, len(text), 8)
        )

    return store


def as_steps(weights):
    """Stores numbers by a scale and a bias for each output channel."""
    weights.quantization.numberOfBits = 8
    linear = weights.quantization.linearQuantization
    linear.scale.extend((0.25, 0.125))
    linear.bias.extend((0.0, 1.5))
    codes = [KERNEL[0] / 0.25, (KERNEL[1] - 1.5) / 0.125]
    weights.rawValue = np.concatenate([c.ravel() for c in codes]).astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    "store",
    [as_floats, as_halves, *map(as_table, (4, 5, 6, 8)), as_steps],
    ids=["float", "half", "table4", "table5", "table6", "table8", "linear"],
)
def test_weights_however_they_are_stored(tmp_path, store):
    weights = read_core_ml(model_file(tmp_path / "one.mlmodel", store))
    (name, kernel), *rest = weights.arrays.items()
    assert (name, rest) == ("MobilenetV2/Conv/weights", [])
    np.testing.assert_array_equal(kernel, KERNEL.transpose(2, 3, 1, 0))
    assert weights.graph.image_size == (7, 9)
    assert weights.graph.map_sizes == {"MobilenetV2/Conv": (4, 5)}


def test_too_few_weights_are_refused(tmp_path):
    path = model_file(tmp_path / "short.mlmodel", lambda w: w.floatValue.extend([1.0, 2.0]))
    with pytest.raises(DeepLabError, match="has 2 weights, but its shape requires 12"):
        read_core_ml(path)


def test_another_core_ml_model_is_refused(tmp_path):
    model = _schema().Model()
    model.specificationVersion = 7
    model.mlProgram.version = 1
    path = tmp_path / "program.mlmodel"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DeepLabError, match="mlProgram"):
        read_core_ml(path)
