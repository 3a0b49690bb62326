"""Exported ONNX files of one size in OpenCV's dnn module, against the network."""

import cv2
import numpy as np
import pytest
import skimage.data
from selection import slow_unless
from small import expected_logits, small_predictor
from stand_ins import noise
from test_exported_networks import NETWORKS, assert_same

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.data.crops import fitted, pad
from deeplab_jax.export.program import ExportOptions
from deeplab_jax.export.runtimes import export
from deeplab_jax.inference import load

onnx = pytest.importorskip("onnx")

# Published networks and the sizes that they are made for.
PUBLISHED = {
    "deeplabv3_mnv2_dm05_voc_257_float.tflite": (257, 257),
    "deeplabv3_mnv2_voc_513_uint8.tflite": (513, 513),
}
PHOTOGRAPHS = ("astronaut", "cat", "coffee")


def run_opencv(path, images):
    """Returns the result of a file for images uint8 [N, H, W, 3]."""
    network = cv2.dnn.readNetFromONNX(str(path))
    # Memory that OpenCV allocates, but does not write, then holds large numbers.
    freed = [np.full(2**power // 4, 1e20, np.float32) for power in range(8, 24)]
    del freed
    network.setInput(images)
    return network.forward()


@pytest.mark.parametrize("name", slow_unless(lambda name: name == "crop", NETWORKS))
def test_same_logits(tmp_path, name):
    architecture, overrides = NETWORKS[name]
    predictor, path = small_predictor(architecture, **overrides), tmp_path / "network.onnx"
    odd = int(predictor.model.architecture.align_corners)
    images = noise(1, 96 + odd, 128 + odd)
    # As from the command without --batch: one size, any batch.
    export(predictor, path, "onnx", ExportOptions(size=images.shape[1:3], argmax=False))
    found = run_opencv(path, images)
    assert_same(found, expected_logits(predictor, images))


def test_maps_of_one_pixel_are_not_resized(tmp_path):
    """OpenCV 5.0 reads outside of them, so the result depends on what the memory held."""
    predictor = small_predictor("deeplab_v3", **NETWORKS["v3"][1])
    export(predictor, tmp_path / "network", "onnx", ExportOptions(size=(65, 97)))
    graph = onnx.load(tmp_path / "network").graph
    kinds = [node.op_type for node in graph.node]
    # Image pooling and the logits.
    assert (kinds.count("Expand"), kinds.count("Resize")) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_same_classes_of_photographs(shared, tmp_path, name):
    model, size = tmp_path / "model", PUBLISHED[name]
    assert run(["convert", str(shared / "weights" / name), f"--output={model}"], Console()) == 0
    predictor = load(model)
    export(predictor, tmp_path / "network.onnx", "onnx", ExportOptions(size=size))
    for photograph in PHOTOGRAPHS:
        image = fitted(getattr(skimage.data, photograph)(), size)
        height, width = image.shape[:2]
        padded = pad(image, size, predictor.model.architecture.mean_pixel)
        found = run_opencv(tmp_path / "network.onnx", padded[None])[0, :height, :width]
        expected = predictor(image)
        assert len(np.unique(expected)) > 1
        assert np.mean(found == expected) >= 0.999
