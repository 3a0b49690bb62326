"""A trained model goes to the Hub and a directory, and predicts the same from there."""

import json

import numpy as np
import pytest
import skimage.data
from hub_server import MAIN, serving_hub
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture
def photograph(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(skimage.data.chelsea()[:96, :160]).save(folder / "cat.png")
    return folder


def test_push_and_load_in_other_processes(commands, trained, photograph, tmp_path):
    with serving_hub() as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": hub.token,
        }

        def probabilities(model, name, **changes):
            words = ["predict", f"--model={model}", f"--output={tmp_path / name}"]
            commands.run(*words, "--probabilities", photograph, **environment | changes)
            return np.load(tmp_path / name / "cat_probabilities.npz")["probabilities"]

        evaluated = tmp_path / "evaluated"
        data = [f"--data_dir={commands.data_dir}", "--dataset=shapes", "--split=val"]
        commands.run("evaluate", f"--model={trained}", *data, f"--output={evaluated}")
        pushed = commands.run(
            *("push", f"--model={trained}", "--repo=user/tiny", "--license=mit"),
            *(f"--metrics={evaluated}", "--message=A first model"),
            **environment,
        )
        assert "the model is at hf://user/tiny" in pushed.stdout
        assert len(pushed.stderr.splitlines()) == 1
        repository = hub.repositories["user/tiny"]
        assert repository.messages[-1] == "A first model"
        files = repository.commits[repository.branches[MAIN]]
        assert sorted(files) == ["README.md", "example.png", "model.json", "model.safetensors"]
        card = files["README.md"].decode()
        metrics = json.loads((evaluated / "metrics.json").read_text())
        assert f"| mean IoU | {100 * metrics['mean_iou']:.2f} |" in card
        assert "* Training: shapes, split train, 24 images" in card
        assert str(tmp_path) not in card
        assert str(commands.data_dir.parent) not in card + files["model.json"].decode()
        expected = probabilities(trained, "own")
        assert len(np.unique(expected)) > 10
        np.testing.assert_array_equal(probabilities("hf://user/tiny", "hub"), expected)
        commit = repository.branches[MAIN]
        np.testing.assert_array_equal(probabilities(f"hf://user/tiny@{commit}", "commit"), expected)
        wrong = commands.run(
            "predict",
            *("--model=hf://user/tiny@v9", f"--output={tmp_path / 'none'}", photograph),
            status=2,
            **environment,
        )
        assert wrong.stderr.splitlines()[-1].endswith("the repository has no such revision")
        assert not (tmp_path / "none").exists()
    # The server has ended.
    np.testing.assert_array_equal(
        probabilities("hf://user/tiny", "offline", HF_HUB_OFFLINE="1"), expected
    )
    np.testing.assert_array_equal(probabilities("hf://user/tiny", "unreachable"), expected)
    commands.run("push", f"--model={trained}", f"--output={tmp_path / 'shared'}")
    np.testing.assert_array_equal(probabilities(tmp_path / "shared", "directory"), expected)
