import jax
import numpy as np
import pytest

from deeplab_jax import config as configs
from deeplab_jax.data import ArrayDataset, Augmentation, duplicated, training_batches
from deeplab_jax.data.datasets import largest_size
from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel import make_mesh
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.setup import assemble

NAMES = ("sky", "tree", "road", "car")
STILL = Augmentation((4, 5), 1.0, 1.0, flip=False)


@pytest.fixture
def dataset() -> ArrayDataset:
    """Seven images that tell their number; numbers 2 and 5 hold a car, 5 and 6 a road."""
    images = np.repeat(np.arange(7, dtype=np.uint8), 60).reshape(7, 4, 5, 3)
    labels = np.zeros((7, 4, 5), np.uint8)
    labels[[2, 5], 1, 2] = 3
    labels[[5, 6], 3, 4] = 2
    labels[0] = 255
    return ArrayDataset(images, labels, NAMES)


@pytest.mark.parametrize(
    ("classes", "again"), [(("car",), [2, 5]), (("road", "car"), [2, 5, 6]), (("tree",), [])]
)
def test_images_of_rare_classes_come_once_more(dataset, classes, again):
    longer = duplicated(dataset, classes)
    assert [longer[index]["image_id"] for index in range(len(longer))] == [
        str(number) for number in (*range(7), *again)
    ]
    assert longer.descriptor == dataset.descriptor
    assert largest_size(longer) == (4, 5)


def test_an_epoch_holds_them_twice_and_restarts_where_it_was(dataset):
    longer = duplicated(dataset, ("car",))

    def numbers(start, count, **options):
        batches = training_batches(longer, STILL, batch_size=3, seed=1, start_step=start, **options)
        return np.concatenate([next(batches)["image"][:, 0, 0, 0] for _ in range(count)])

    order = numbers(0, 6)
    epochs = np.sort(order.reshape(2, 9), axis=1)
    assert (epochs == [0, 1, 2, 2, 3, 4, 5, 5, 6]).all()
    assert (numbers(2, 4) == order[6:]).all()
    assert (numbers(2, 2, workers=2) == order[6:12]).all()


def test_a_run_duplicates_what_it_trains_on_alone(dataset, tmp_path):
    config = configs.default()
    config.data.oversample_classes = ("road", "car")
    config.model.backbone = "mobilenet_v2"
    mesh = make_mesh(jax.devices()[:1])
    run = assemble(config, tmp_path, mesh, dataset, dataset, epochs=16, reporter=Reporter())
    assert (len(run.train), len(run.validation)) == (10, 7)


def test_an_unknown_class_names_the_nearest(dataset):
    with pytest.raises(
        DeepLabError, match=r"class of arrays in data.oversample_classes.*'carr'.*'car'"
    ):
        duplicated(dataset, ("road", "carr"))
