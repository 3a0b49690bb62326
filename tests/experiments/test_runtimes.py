"""The benchmark of exported files on systems that do not report the memory of a process."""

import numpy as np

from experiments import runtimes


class Network:
    """Stand-in for a network in OpenCV: the class of a pixel is its red value."""

    def setInput(self, images):  # noqa: N802
        self.images = images

    def forward(self):
        return self.images[..., 0].astype(np.int32)


def test_opencv_is_measured_if_the_memory_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr("cv2.dnn.readNetFromONNX", lambda path: Network())
    monkeypatch.setattr(runtimes, "process_memory", lambda entry: None)
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    images, classes = tmp_path / "images.npy", tmp_path / "classes.npy"
    np.save(images, pixels)
    found = runtimes.measure_opencv("network.onnx", str(images), str(classes), 1)
    assert found["seconds"] > 0
    assert found["peak_bytes"] is None
    np.testing.assert_array_equal(np.load(classes), pixels[..., 0])
