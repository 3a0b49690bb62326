"""Files on Hugging Face."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from deeplab_jax.pretrained.catalog import PretrainedModel
from deeplab_jax.pretrained.download import by_hand

# Read when the library is imported; the user's own values win.
SILENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
CONFIGURATION = "config.json"


def download_from_hub(entry: PretrainedModel, cache: Path, target: Path) -> Path:
    """Downloads a file of a repository on Hugging Face, or finds it in the cache.

    The repository's configuration comes with it and lies beside it.

    Args:
      entry: of the catalog.
      cache: directory that huggingface_hub keeps in its own way.
      target: where the error says that the file may be put by hand.

    Returns:
      Path in the cache.

    Raises:
      DeepLabError: there is no network, or no such file.
    """
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    from huggingface_hub import hf_hub_download

    try:
        with _quiet():
            for name in (CONFIGURATION, entry.hub_file):
                found = hf_hub_download(entry.hub_repository, name, cache_dir=cache, token=False)
    except Exception as error:
        # Its own errors, those of whichever network library it uses, and ValueError when offline.
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise by_hand(entry.address, target, reason) from error
    return Path(found)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back the library's warnings of every attempt: the error says it all."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
