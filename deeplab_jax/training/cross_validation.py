"""Training on the folds of a data set: how far a number depends on which images are which."""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Sequence

from ml_collections import ConfigDict

from deeplab_jax.data.folds import folds
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, write_text
from deeplab_jax.parallel import is_first_host
from deeplab_jax.reporter import LoggingReporter, Reporter
from deeplab_jax.training import workdir as workdirs
from deeplab_jax.training.loop import train
from deeplab_jax.training.run import Source, open_source

RESULTS_FILE = "cross_validation.json"


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """What the folds came to.

    Attributes:
      workdir: of all; each fold's is `fold_N` in it.
      mean_ious: of each fold's validation, after its last step.
    """

    workdir: pathlib.Path
    mean_ious: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean of the folds' mean IoU."""
        return statistics.fmean(self.mean_ious)

    @property
    def standard_deviation(self) -> float:
        """Of the folds' mean IoU, with n − 1 in the divisor."""
        return statistics.stdev(self.mean_ious)


def cross_validate(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    count: int,
    dataset: Source = None,
    *,
    reporter: Reporter | None = None,
) -> CrossValidation:
    """Trains a network a fold, each validated on the images that it does not see.

    What is done is not done again: an interrupted fold goes on, a finished one keeps its number.

    Args:
      config: see deeplab_jax/config.py; the same for every fold.
      workdir: of all folds.
      count: of folds.
      dataset: to divide: a prepared data set's name, a pair of arrays, or None for the config's;
        of a named one the training split.
      reporter: hears progress.

    Raises:
      DeepLabError: as `train`; or the workdir holds folds of another number or config.
      KeyboardInterrupt: as `train`.
    """
    workdir, reporter = as_path(workdir), reporter or LoggingReporter()
    whole = open_source(dataset, config, config.data.train_split)
    divided = list(folds(whole, count, config.seed))
    done = _finished(workdir, count)
    if is_first_host():
        workdirs.claim(workdir, config)
    for number, (seen, unseen) in enumerate(divided, start=1):
        if number <= len(done):
            reporter.message(f"fold {number} of {count} is done: {done[number - 1]:.4f} mean IoU")
            continue
        reporter.message(f"fold {number} of {count}")
        result = train(config, workdir / f"fold_{number}", seen, unseen, reporter=reporter)
        done = [*done, result.mean_iou]
        if is_first_host():
            _write(workdir, count, done)
    return CrossValidation(workdir, tuple(done))


def _finished(workdir: pathlib.Path, count: int) -> list[float]:
    """Returns the numbers of the folds that are done, in order.

    Raises:
      DeepLabError: the workdir holds folds of another number.
    """
    path = workdir / RESULTS_FILE
    if not path.exists():
        return []
    written = json.loads(path.read_text())
    if written["folds"] != count:
        raise DeepLabError(
            f"{workdir} holds {written['folds']} folds, not {count}; give another --workdir, or "
            f"--folds={written['folds']} to go on"
        )
    return written["mean_ious"]


def _write(workdir: pathlib.Path, count: int, mean_ious: Sequence[float]) -> None:
    found = CrossValidation(workdir, tuple(mean_ious))
    summary = {"folds": count, "mean_ious": list(mean_ious)}
    if len(mean_ious) == count:
        summary |= {"mean": found.mean, "standard_deviation": found.standard_deviation}
    write_text(workdir / RESULTS_FILE, json.dumps(summary, indent=2) + "\n")
