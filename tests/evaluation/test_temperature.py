import json

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from reporters import RecordingReporter
from stand_ins import NUM_CLASSES, random_dataset, red_predictor, write_workdir

from deeplab_jax import checkpointing, inference
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.data import ArrayDataset
from deeplab_jax.data.descriptors import SHAPES
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation import evaluate, fit_temperature
from deeplab_jax.inference import InferenceOptions

SIZES = [(20, 31), (33, 33), (300, 301)]


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(SIZES)


def fit(predictor, dataset, **settings):
    return fit_temperature(predictor, dataset, reporter=RecordingReporter(), **settings)


def logits_and_truth(dataset):
    """Returns the logits of `RedReader` and the truth of all valid pixels, in float64."""
    logits, truth = [], []
    for index in range(len(dataset)):
        image, label = dataset[index]["image"], dataset[index]["label"]
        odds = (image[..., 1:2].astype(np.float64) + 1) / 64
        valid = label != 255
        logits.append((odds * np.eye(NUM_CLASSES)[image[..., 0] % NUM_CLASSES])[valid])
        truth.append(label[valid])
    return np.concatenate(logits), np.concatenate(truth)


def likelihood(temperature, logits, truth):
    scaled = logits / temperature
    own = scaled[np.arange(len(truth)), truth]
    return float((scipy.special.logsumexp(scaled, axis=1) - own).mean())


def test_the_temperature_maximizes_the_likelihood(dataset):
    found = fit(red_predictor(dataset), dataset, batch_size=2)
    logits, truth = logits_and_truth(dataset)
    expected = scipy.optimize.minimize_scalar(
        likelihood, (0.5, 2.0), args=(logits, truth), options={"xtol": 1e-10}
    )
    assert found.temperature == pytest.approx(expected.x, rel=1e-5)
    assert found.before == pytest.approx(likelihood(1.0, logits, truth), rel=1e-6)
    assert found.after == pytest.approx(expected.fun, rel=1e-6)
    assert found.num_pixels == len(truth)


def test_the_temperature_changes_probabilities_and_no_class(dataset):
    predictor = red_predictor(dataset)
    warm = predictor.with_temperature(1.7)
    image = dataset[0]["image"]
    before, after = predictor.predict(image), warm.predict(image)
    np.testing.assert_array_equal(before.class_map, after.class_map)
    expected = scipy.special.softmax(predictor.logits(image) / 1.7, axis=-1)
    np.testing.assert_allclose(after.probabilities, expected, atol=1e-6)
    assert np.abs(before.probabilities - after.probabilities).max() > 0.05
    # The logits of both are the same; the CRF depends on them alone.
    np.testing.assert_array_equal(predictor.logits(image), warm.logits(image))


def test_evaluation_measures_the_scaled_probabilities(dataset):
    predictor = red_predictor(dataset)
    found = fit(predictor, dataset)
    warm = predictor.with_temperature(found.temperature)
    before, after = (
        evaluate(one, dataset, calibration_bins=15, batch_size=2) for one in (predictor, warm)
    )
    assert before["confusion_matrix"] == after["confusion_matrix"]
    losses = [one["calibration"]["negative_log_likelihood"] for one in (before, after)]
    assert losses == pytest.approx([found.before, found.after], rel=1e-6)
    without = evaluate(predictor, dataset, batch_size=2)
    assert without["calibration"] is None
    assert without["per_class_average_precision"] == before["per_class_average_precision"]
    assert (before["settings"]["temperature"], after["settings"]["temperature"]) == (
        None,
        found.temperature,
    )


def test_strategies_have_their_own_temperature(dataset):
    predictor, flipped = red_predictor(dataset), InferenceOptions(flip=True, tile=(65, 65))
    found = fit(predictor, dataset, options=flipped, limit=2)
    assert found.settings["flip"] is True
    assert found.num_images == 2


def labelled(values):
    images = np.random.default_rng(0).integers(0, 256, (1, 30, 30, 3), dtype=np.uint8)
    return ArrayDataset(images, values(images[..., 0]), ["sky", "tree", "road", "car"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda red: red % 4, "the model makes no errors"),
        (lambda red: (red + 1) % 4, "no better than chance"),
        (lambda red: np.full_like(red, 255), "every pixel is void"),
    ],
)
def test_splits_without_a_maximum_are_refused(values, message):
    dataset = labelled(values)
    with pytest.raises(DeepLabError, match=message):
        fit(red_predictor(dataset), dataset)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "2", None, True])
def test_illegal_temperatures_are_refused(dataset, temperature):
    with pytest.raises(DeepLabError, match="must be a finite number above 0"):
        red_predictor(dataset).with_temperature(temperature)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    prepare = ["--num_train=1", "--num_val=4", "--size=32", f"--data_dir={folder / 'data'}"]
    assert run(["prepare", "shapes", *prepare], Console()) == 0
    write_workdir(folder / "run", SHAPES.class_names)
    return folder


def command(name, world, *extra, model="run"):
    flags = {"model": world / model, "dataset": "shapes", "data_dir": world / "data"}
    return run([name, *(f"--{flag}={value}" for flag, value in flags.items()), *extra], Console())


def use_known_likelihood(monkeypatch):
    """Replaces the network: an untrained one may be no better than chance."""

    def likelihoods(inference, predictor, inverses, reporter):
        slope = np.log(inverses * 1.25)
        return np.stack([slope**2, slope, 1 / inverses, np.full(len(inverses), 9.0)])

    monkeypatch.setattr("deeplab_jax.evaluation.temperature._likelihoods", likelihoods)


def test_the_command_writes_a_model_with_a_temperature(world, capsys, monkeypatch):
    use_known_likelihood(monkeypatch)
    made = world / "made"
    assert command("calibrate", world, f"--output={made}", "--split=val[:50%]") == 0
    assert "temperature 1.2500 on 2 images" in capsys.readouterr().out
    description = checkpointing.read_description(made)
    assert description.temperature == pytest.approx(1.25, rel=1e-4)
    assert description.source["temperature"]["settings"]["split"] == "val[:50%]"
    assert inference.load(made).temperature == description.temperature
    assert command("calibrate", world, f"--output={made}") == 2
    assert "is not an empty directory" in capsys.readouterr().err


@pytest.mark.slow
def test_the_calibrated_model_is_evaluated_and_keeps_its_classes(world, capsys, monkeypatch):
    use_known_likelihood(monkeypatch)
    made = world / "evaluated"
    assert command("calibrate", world, f"--output={made}") == 0
    before, after = inference.load(world / "run"), inference.load(made)
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(before(image), after(image))
    report = world / "report"
    flags = ("--split=val[50%:]", "--calibration", "--calibration_bins=10", f"--output={report}")
    assert command("evaluate", world, *flags, model="evaluated") == 0
    metrics = json.loads((report / "metrics.json").read_text())
    printed = capsys.readouterr().out
    assert f"{metrics['calibration']['expected_calibration_error']:6.4f}" in printed
    assert len(metrics["calibration"]["reliability"]) == 10
    assert (report / "reliability.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "extra", "message"),
    [
        ("calibrate", ["--crf", "--output=crf"], "cannot be combined with a CRF"),
        ("calibrate", ["pictures", "--output=x"], "only flags, not 'pictures'"),
        ("calibrate", [], "--output must be given"),
        ("calibrate", ["--output=run/model.json/made"], "model.json cannot be written"),
        ("evaluate", ["--calibration", "--table"], "--calibration cannot be combined"),
        ("evaluate", ["--calibration_bins=5"], "requires --calibration"),
        ("evaluate", ["--dropout_samples=4"], "requires --uncertainty=dropout"),
        ("evaluate", ["--spatial=2", "--tile=65x65"], "cannot be combined with --tile"),
        ("evaluate", ["--calibration", "--calibration_bins=2000"], "at most 1000"),
    ],
)
def test_mistakes_are_reported(world, capsys, monkeypatch, name, extra, message):
    monkeypatch.chdir(world)
    before = sorted(world.iterdir())
    assert command(name, world, *extra) == 2
    assert message in capsys.readouterr().err
    assert sorted(world.iterdir()) == before


def test_damaged_temperatures_are_reported(world, tmp_path):
    stored = checkpointing.read_description(world / "run")
    values = checkpointing.description_values(stored)
    assert checkpointing.parse_description(dict(values)) == stored
    old = {name: value for name, value in values.items() if name != "temperature"}
    assert checkpointing.parse_description(old).temperature == 1
    with pytest.raises(DeepLabError, match="temperature='warm' must be a finite number above 0"):
        checkpointing.parse_description(dict(values) | {"temperature": "warm"})
