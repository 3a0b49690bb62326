"""Cross-validation over the folds of a dataset."""

import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.data.datasets import Dataset, fingerprint
from deeplab_jax.data.folds import folds
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation.passes import check_size
from deeplab_jax.files import as_path, write_text
from deeplab_jax.inference.padding import size_grid
from deeplab_jax.models import Architecture
from deeplab_jax.parallel import is_first_host
from deeplab_jax.reporter import LoggingReporter, Reporter
from deeplab_jax.training import workdir as workdirs
from deeplab_jax.training.setup import Source, open_source, warn_of_absent_classes
from deeplab_jax.training.train import train
from deeplab_jax.training.workdir import network_of, with_network

RESULTS_FILE = "cross_validation.json"


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """Results of a cross-validation.

    Attributes:
      workdir: directory with one workdir `fold_N` per fold.
      mean_ious: mean IoU of each fold after the last training step, as a fraction; NaN for folds
        without valid (not void) pixels.
    """

    workdir: pathlib.Path
    mean_ious: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean of `mean_ious`, ignoring NaN; NaN if all are NaN."""
        return statistics.fmean(self._numbers) if self._numbers else math.nan

    @property
    def standard_deviation(self) -> float:
        """Sample standard deviation (divisor n − 1) of `mean_ious`, ignoring NaN.

        If there are fewer than two values, the result is NaN.
        """
        return statistics.stdev(self._numbers) if len(self._numbers) > 1 else math.nan

    @property
    def _numbers(self) -> list[float]:
        return [mean_iou for mean_iou in self.mean_ious if not math.isnan(mean_iou)]


def cross_validate(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    count: int,
    dataset: Source = None,
    *,
    reporter: Reporter | None = None,
) -> CrossValidation:
    """Runs a cross-validation: one network per fold is trained on all other folds.

    Each network is evaluated on its fold. If an earlier call was interrupted, finished folds are
    not repeated, and the interrupted fold is resumed.

    Args:
      config: config of all folds, see deeplab_jax/config_fields.py.
      workdir: directory for the workdirs of all folds.
      count: number of folds.
      dataset: dataset to divide into folds. A name selects the training split of a prepared
        dataset, and a pair contains arrays (images, masks). None: the dataset of the config.
      reporter: receives progress events.

    Raises:
      DeepLabError: the config or the dataset is invalid, the loss became infinite or NaN, or the
        workdir contains a cross-validation with another number of folds or another config.
      KeyboardInterrupt: the process received SIGINT or SIGTERM; the state of the interrupted fold
        has been saved.
    """
    workdir, reporter = as_path(workdir), reporter or LoggingReporter()
    workdirs.check_workdir(workdir)
    configs.check(config)
    whole = open_source(dataset, config, config.data.train_split)
    warn_of_absent_classes(whole, reporter)
    divided = list(folds(whole, count, config.seed))
    done = _finished(workdir, count)
    # All folds must have the same network, even if an earlier release trained some of them.
    version = workdirs.format_version(workdir)
    network = network_of(config, version=version, bands=whole.descriptor.bands)
    config = with_network(config, network)
    _check_evaluation_size(config, network, [unseen for _, unseen in divided])
    if is_first_host():
        workdirs.claim(workdir, config, {workdirs.WHOLE: fingerprint(whole)})
    for number, (seen, unseen) in enumerate(divided, start=1):
        if number <= len(done):
            reporter.message(f"fold {number} of {count} is done: {done[number - 1]:.4f} mean IoU")
            continue
        reporter.message(f"fold {number} of {count}: training on the other folds")
        result = train(config, workdir / f"fold_{number}", seen, unseen, reporter=reporter)
        done = [*done, result.mean_iou]
        if is_first_host():
            _write(workdir, count, done)
    return CrossValidation(workdir, tuple(done))


def _check_evaluation_size(
    config: ConfigDict, network: Architecture, validation_sets: Sequence[Dataset]
) -> None:
    """Checks that the images that are evaluated in any fold fit into `evaluation.size`.

    All folds are checked before training, because a cross-validation cannot be resumed with another
    size.
    """
    if config.evaluation.size is None:
        return
    size = size_grid(network).round_up(config.evaluation.size)
    for unseen in validation_sets:
        check_size(size, unseen, min(len(unseen), config.evaluation.limit or len(unseen)))


def _finished(workdir: pathlib.Path, count: int) -> list[float]:
    """Returns the mean IoU of each finished fold, in the order of the folds.

    Raises:
      DeepLabError: the workdir contains a cross-validation with another number of folds, or the
        file of its results is damaged.
    """
    path = workdir / RESULTS_FILE
    if not path.exists():
        return []
    try:
        written = json.loads(path.read_text())
        number, found = written["folds"], list(written["mean_ious"])
    except (KeyError, TypeError, ValueError) as error:
        raise DeepLabError(
            f"{path} cannot be read: {error!r}; delete it to evaluate the finished folds again"
        ) from error
    if number != count:
        raise DeepLabError(
            f"{workdir} contains a cross-validation with {number} folds, not {count}; "
            f"give another --workdir, or --folds={number} to resume"
        )
    return [math.nan if mean_iou is None else mean_iou for mean_iou in found]


def _write(workdir: pathlib.Path, count: int, mean_ious: Sequence[float]) -> None:
    found = CrossValidation(workdir, tuple(mean_ious))
    summary: dict[str, Any] = {"folds": count, "mean_ious": [*map(_or_null, mean_ious)]}
    if len(mean_ious) == count:
        summary["mean"] = _or_null(found.mean)
        summary["standard_deviation"] = _or_null(found.standard_deviation)
    write_text(workdir / RESULTS_FILE, json.dumps(summary, indent=2, allow_nan=False) + "\n")


def _or_null(number: float) -> float | None:
    """Returns a number unchanged, but None for NaN, which JSON files cannot contain."""
    return None if math.isnan(number) else number
