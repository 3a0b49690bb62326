import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from deeplab_jax.data import (
    ArrayDataset,
    Augmentation,
    evaluation_batches,
    open_dataset,
    pipeline,
    training_batches,
)
from deeplab_jax.errors import DeepLabError

AUGMENTATION = Augmentation((33, 49), rotation=5.0, photometric=0.5)


def take(batches, number: int) -> list[dict[str, np.ndarray]]:
    return [next(batches) for _ in range(number)]


def assert_equal(batches, others) -> None:
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            assert np.array_equal(batch[name], other[name])


@pytest.fixture(scope="module")
def train(shapes_dir):
    return open_dataset("shapes", shapes_dir, "train")


@pytest.fixture(scope="module")
def reference(train):
    return take(training_batches(train, AUGMENTATION, batch_size=4, seed=7), 8)


def test_batches_keep_the_contract(reference):
    for batch in reference:
        assert batch["image"].shape == (4, 33, 49, 3)
        assert batch["label"].shape == (4, 33, 49)
        assert batch["image"].dtype == batch["label"].dtype == np.uint8


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_workers_change_nothing(train, reference, workers):
    batches = training_batches(train, AUGMENTATION, batch_size=4, seed=7, workers=workers)
    assert_equal(take(batches, 8), reference)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_to_all_processes_of_a_run_do_not_end_the_workers(train, number):
    """Ctrl-C in a terminal, and SLURM, send a signal to all processes of a run."""
    batches = training_batches(train, AUGMENTATION, batch_size=4, seed=7, workers=2)
    take(batches, 2)
    children = multiprocessing.active_children()
    assert len(children) >= 2
    for child in children:
        os.kill(child.pid, number)
    # Several of them were read before the signal.
    assert len(take(batches, 40)) == 40


KILLED = """
import os, signal, sys
from deeplab_jax.data import Augmentation, open_dataset, training_batches

train = open_dataset("shapes", sys.argv[1], "train")
batches = training_batches(train, Augmentation((33, 49)), batch_size=4, seed=7, workers=2)
next(batches)
print("reads", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_when_their_parent_process_is_killed(shapes_dir):
    # The call returns when all processes have closed the pipe: the killed one and its workers.
    words = [sys.executable, "-c", KILLED, str(shapes_dir)]
    killed = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=120)
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "reads\n")


@pytest.mark.parametrize("start_step", [1, 5, 7])
def test_a_restart_continues_at_the_same_batch(train, reference, start_step):
    batches = training_batches(train, AUGMENTATION, batch_size=4, seed=7, start_step=start_step)
    assert_equal(take(batches, 8 - start_step), reference[start_step:])


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_hosts_share_each_global_batch_in_contiguous_slices(train, reference, num_hosts):
    options = {"batch_size": 4, "seed": 7, "start_step": 3, "num_hosts": num_hosts}
    hosts = [
        take(training_batches(train, AUGMENTATION, host=host, **options), 3)
        for host in range(num_hosts)
    ]
    joined = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*hosts, strict=True)
    ]
    assert_equal(joined, reference[3:6])


def test_the_seed_decides(train, reference):
    other = take(training_batches(train, AUGMENTATION, batch_size=4, seed=8), 1)
    assert not np.array_equal(other[0]["image"], reference[0]["image"])


def test_each_epoch_holds_every_example_once_in_an_order_of_its_own():
    images = np.repeat(np.arange(10, dtype=np.uint8), 12).reshape(10, 2, 2, 3)
    dataset = ArrayDataset(images, np.zeros((10, 2, 2), np.uint8), "ab")
    still = Augmentation((2, 2), 1.0, 1.0, flip=False)
    batches = take(training_batches(dataset, still, batch_size=5, seed=0), 6)
    seen = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches]).reshape(3, 10)
    assert (np.sort(seen, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in seen.tolist()}) == 3


def test_a_repeated_example_is_augmented_differently():
    images = np.random.default_rng(0).integers(0, 256, (1, 60, 60, 3), np.uint8)
    dataset = ArrayDataset(images, np.zeros((1, 60, 60), np.uint8), "ab")
    (batch,) = take(training_batches(dataset, AUGMENTATION, batch_size=6, seed=0), 1)
    assert len({image.tobytes() for image in batch["image"]}) == 6


@pytest.mark.parametrize("batch_size", [1, 3, 7, 16])
def test_evaluation_shows_each_image_once_in_order(shapes_dir, batch_size):
    dataset = open_dataset("shapes", shapes_dir, "val")
    batches = list(evaluation_batches(dataset, (65, 70), batch_size=batch_size))
    index = np.concatenate([batch["index"] for batch in batches])
    assert index.dtype == np.int32
    assert index.tolist() == [*range(7), *[-1] * (-7 % batch_size)]
    images = np.concatenate([batch["image"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])
    for position in range(7):
        assert np.array_equal(images[position, :64, :64], dataset[position]["image"])
        assert np.array_equal(labels[position, :64, :64], dataset[position]["label"])
    assert (labels[index == -1] == 255).all()
    assert (labels[:, 64:] == 255).all()


@pytest.mark.parametrize(("num_hosts", "limit", "workers"), [(2, None, 0), (4, 5, 0), (1, 5, 2)])
def test_hosts_evaluate_equally_many_batches(shapes_dir, num_hosts, limit, workers):
    dataset = open_dataset("shapes", shapes_dir, "val")
    options = {"batch_size": 4, "num_hosts": num_hosts, "limit": limit, "workers": workers}
    hosts = [
        [batch["index"] for batch in evaluation_batches(dataset, (64, 64), host=host, **options)]
        for host in range(num_hosts)
    ]
    assert {len(batches) for batches in hosts} == {2}
    index = np.concatenate([np.concatenate(parts) for parts in zip(*hosts, strict=True)])
    assert index[index >= 0].tolist() == list(range(limit or 7))


@dataclasses.dataclass
class Damaged:
    """A data set whose third example cannot be read."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            raise DeepLabError("camvid, train, frame 2: its bytes cannot be decoded")
        label = np.zeros((8, 8), np.uint8)
        return {"image": np.zeros((8, 8, 3), np.uint8), "label": label, "image_id": str(index)}


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (-9, r"\(exit code -9\)\. Memory was .* reduce data\.workers\. Run the same command"),
        (1, r"\(exit code 1\)\. Its error .* below if __name__ == '__main__':"),
        (-11, r"\(exit code -11\)\. Run the same command"),
    ],
)
def test_the_error_for_a_dead_worker_advises_by_its_exit_code(code, advice):
    def batches():
        yield from ()
        raise RuntimeError(f"Worker process was terminated unexpectedly with exit code {code}. …")

    with pytest.raises(DeepLabError, match=advice):
        next(pipeline._naming_dead_workers(batches()))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_example_is_an_error_that_names_it(workers):
    batches = training_batches(Damaged(), AUGMENTATION, batch_size=4, seed=0, workers=workers)
    with pytest.raises(DeepLabError, match="frame 2: its bytes"):
        next(batches)


def test_a_batch_that_does_not_divide_and_an_image_too_large(train):
    with pytest.raises(DeepLabError, match=r"batch size 6 is not a positive multiple .*: 4, 8$"):
        training_batches(train, AUGMENTATION, batch_size=6, seed=0, num_hosts=4)
    with pytest.raises(DeepLabError, match=r"batch size 0 is not a positive multiple .* sizes: 1$"):
        training_batches(train, AUGMENTATION, batch_size=0, seed=0)
    with pytest.raises(DeepLabError, match="larger than the evaluation size 63x64"):
        next(evaluation_batches(train, (63, 64), batch_size=1))
