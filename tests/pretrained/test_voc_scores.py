"""Published networks on real images: not below what their own interpreters reach."""

import cv2
import numpy as np
import pytest
from converted import converted_predictor
from voc_scores import scores

# Pixel accuracy and mean IoU of independent executions of the files, and by how much ours may fall
# below.
EXECUTED = {
    "deeplabv3_mnv2_voc_513_uint8.tflite": (0.943, 0.454),
    "deeplabv3_mnv2_voc_513_lut8.mlmodel": (0.974, 0.583),
}
MARGINS = (0.003, 0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXECUTED)
def test_images_padded_to_513(shared, name):
    if name.endswith(".mlmodel"):
        pytest.importorskip("coremltools", reason="the coreml extra is not installed")
    found = scores(shared, converted_predictor(shared / "weights" / name))
    wanted = np.subtract(EXECUTED[name], MARGINS)
    assert np.all(np.array(found) >= wanted), found


@pytest.mark.slow
def test_images_resized_to_257(shared):
    network = converted_predictor(shared / "weights" / "deeplabv3_mnv2_dm05_voc_257_float.tflite")

    def predict(image):
        height, width = image.shape[:2]
        scale = 257 / max(height, width)
        small = cv2.resize(
            image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA
        )
        class_map = network(small).astype(np.uint8)
        return cv2.resize(class_map, (width, height), interpolation=cv2.INTER_NEAREST)

    wanted = np.subtract((0.906, 0.366), MARGINS)
    found = scores(shared, predict)
    assert np.all(np.array(found) >= wanted), found
