"""Google's published TFLite networks, against the interpreter that they were made for."""

import cv2
import jax
import numpy as np
import pytest
from converted import converted_predictor

from deeplab_jax.pretrained import convert

interpreters = pytest.importorskip(
    "ai_edge_litert.interpreter", reason="ai-edge-litert, of the test extra, is not installed"
)
FLOAT = "deeplabv3_mnv2_dm05_voc_257_float.tflite"
UINT8 = "deeplabv3_mnv2_voc_513_uint8.tflite"


@pytest.fixture(scope="module")
def float_predictor(shared):
    return converted_predictor(shared / "weights" / FLOAT)


@pytest.fixture(scope="module")
def logits_of(float_predictor):
    """A function that returns the logits of one image."""
    apply = jax.jit(float_predictor.model.apply)
    return lambda image: np.asarray(apply(float_predictor.variables, image[None]))[0]


@pytest.fixture(scope="module")
def interpreter(shared):
    interpreter = interpreters.Interpreter(str(shared / "weights" / FLOAT))
    interpreter.allocate_tensors()
    return interpreter


def reference_logits(interpreter, image):
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(given["index"], image[None].astype(np.float32) * (2 / 255) - 1)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])[0]


def real_images(shared, count):
    """Yields images of VOC, resized to what the network takes."""
    for path in sorted((shared / "data" / "voc2012").rglob("*.jpg"))[:count]:
        yield cv2.resize(cv2.imread(str(path))[..., ::-1], (257, 257))


def test_the_golden_mask(shared, float_predictor, logits_of, interpreter):
    golden = shared / "data" / "golden"
    image = cv2.imread(str(golden / "segmentation_input_257.jpg"))[..., ::-1].copy()
    mask = cv2.imread(str(golden / "segmentation_golden_257_times10.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(float_predictor(image) * 10, mask)
    logits = logits_of(image)
    np.testing.assert_allclose(logits, reference_logits(interpreter, image), rtol=0, atol=1e-3)


def test_logits_of_real_images(shared, logits_of, interpreter):
    images = list(real_images(shared, 10))
    assert len(images) == 10
    logits = np.stack([logits_of(image) for image in images])
    expected = np.stack([reference_logits(interpreter, image) for image in images])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)
    assert np.mean(logits.argmax(-1) == expected.argmax(-1)) > 0.9999


@pytest.mark.parametrize(
    ("name", "multiplier", "stride", "size"), [(FLOAT, 0.5, 8, 257), (UINT8, 1.0, 16, 513)]
)
def test_the_network_is_read_from_the_file(shared, name, multiplier, stride, size):
    conversion = convert(shared / "weights" / name)
    options = conversion.description.create_model().architecture
    assert (options.backbone, options.head) == ("mobilenet_v2", "pooling")
    assert (options.depth_multiplier, options.output_stride) == (multiplier, stride)
    assert conversion.description.inference_size == options.pooling_crop == (size, size)
    assert conversion.description.class_names[15] == "person"
    assert not conversion.assignment.unused
    # One convolution in each of the 51 of the backbone and 3 of the head.
    assert len(conversion.description.source["folded_batch_norm"]) == 54
