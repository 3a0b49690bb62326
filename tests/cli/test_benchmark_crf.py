import json

import cv2
import numpy as np
import pytest

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run


@pytest.mark.slow
def test_the_crf_is_measured_beside_pydensecrf(tmp_path, capsys):
    pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is not installed")
    # Above the size that sums over all pairs are taken for.
    image = np.random.default_rng(0).integers(0, 256, (61, 80, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    arguments = [f"--image={tmp_path / 'image.png'}", "--num_classes=3", "--repetitions=1"]
    assert run(["benchmark", "crf", "--json", *arguments], Console()) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["ratio"] == pytest.approx(figures["seconds"] / figures["pydensecrf_seconds"])
    assert figures["label_agreement"] > 0.99
    for step in ("lattice", "splat", "blur", "slice"):
        assert figures[f"{step}_seconds"] > 0
    assert figures["machine"]["cores"] > 0


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--crf=deeplab_larg", "deeplab_largefov"), ("--image=nowhere.png", "nowhere.png")],
)
def test_mistakes_are_reported(capsys, flag, message):
    assert run(["benchmark", "crf", flag], Console()) == 2
    assert message in capsys.readouterr().err
