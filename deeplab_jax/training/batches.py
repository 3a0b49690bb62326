"""The batches of a run, on its devices."""

from collections.abc import Iterator

import jax

from deeplab_jax.data import training_batches
from deeplab_jax.parallel import data_share, put_batch
from deeplab_jax.training.run import Run


def run_batches(run: Run, first: int) -> Iterator[dict[str, jax.Array]]:
    """Returns the training batches on their devices, from the one after step `first`."""
    share = data_share(run.mesh)
    batches = training_batches(
        run.train,
        run.augmentation,
        batch_size=run.config.training.batch_size,
        seed=run.config.seed,
        start_step=first,
        host=share.index,
        num_hosts=share.count,
        workers=run.config.data.workers,
    )
    return (put_batch(batch, run.mesh) for batch in batches)
