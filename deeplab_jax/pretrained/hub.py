"""Models and files on the Hugging Face Hub: addresses, downloads, and one-line errors."""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from deeplab_jax.checkpointing import SAFETENSORS
from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import quiet_logger
from deeplab_jax.pretrained.archives import CONFIGURATION
from deeplab_jax.pretrained.download import by_hand
from deeplab_jax.pretrained.published_models import PretrainedModel
from deeplab_jax.reporter import Reporter

# Environment variables that huggingface_hub reads on import; the user's values take precedence.
SILENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
SCHEME = "hf://"
# Files of a repository from which a model is loaded; all others are documentation.
MODEL_FILES = ("model.json", SAFETENSORS)
CARD, PICTURE = "README.md", "example.png"
REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)
HTTP_REASONS = {
    401: "the token is missing or invalid; run `hf auth login`, or set HF_TOKEN",
    403: "the token does not permit this; a download requires read access to the repository, and "
    "an upload write access",
    404: "there is no such repository, or it is private and the token may not read it",
    429: "too many requests; try again later",
}


class HubAddress(NamedTuple):
    """Address of a model on the Hub.

    Attributes:
      repository: repository, such as `user/name`.
      revision: branch, tag or commit; None: the branch `main`.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return SCHEME + self.repository + (f"@{self.revision}" if self.revision else "")


def is_hub_address(reference: object) -> bool:
    """Returns whether a reference begins with `hf://`."""
    return str(reference).startswith(SCHEME)


def parse_hub_address(reference: str) -> HubAddress:
    """Parses `hf://user/name` or `hf://user/name@revision`.

    Raises:
      DeepLabError: the reference has neither of these forms.
    """
    repository, at, revision = reference.removeprefix(SCHEME).partition("@")
    check_repository(repository, reference)
    if at and not revision:
        raise DeepLabError(f"{reference}: the revision after @ is missing; give a branch or tag")
    return HubAddress(repository, revision or None)


def check_repository(repository: str, reference: str) -> None:
    """Checks the name of a repository.

    Args:
      repository: name to check.
      reference: text that the user entered, for the error message.

    Raises:
      DeepLabError: the name is not of the form `user/name`.
    """
    if not REPOSITORY.fullmatch(repository):
        raise DeepLabError(
            f"{reference} is not a repository on the Hugging Face Hub; expected user/name, with "
            "letters, digits, and the characters - _ ."
        )


def import_hub() -> ModuleType:
    """Imports huggingface_hub without telemetry, and with progress bars on a terminal only."""
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import huggingface_hub

    return huggingface_hub


def download_model(address: HubAddress, reporter: Reporter) -> Path:
    """Returns the local directory of a model on the Hub; downloads files that are not cached.

    The cache is that of huggingface_hub ($HF_HOME). Without an Internet connection, or with
    HF_HUB_OFFLINE=1, a model in the cache is used.

    Args:
      address: repository and revision.
      reporter: receives a message about the download.

    Raises:
      DeepLabError: there is no such model, or it cannot be downloaded.
    """
    hub = import_hub()
    with hub_errors(f"cannot download {address}"):
        cached = hub.try_to_load_from_cache(
            address.repository, SAFETENSORS, revision=address.revision
        )
        if not isinstance(cached, str):
            reporter.message(f"downloading {address}")
        # The token is passed explicitly, because SILENT turns off sending it with every request.
        folder = hub.snapshot_download(
            address.repository,
            revision=address.revision,
            allow_patterns=list(MODEL_FILES),
            token=hub.get_token() or False,
        )
    directory = Path(folder)
    missing = [name for name in MODEL_FILES if not (directory / name).is_file()]
    if missing:
        raise DeepLabError(
            f"{address} contains no model of deeplab_jax, because {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; if an earlier download was "
            "interrupted, repeat it with a network; `deeplab-jax convert` converts downloaded "
            "weights of other libraries"
        )
    return directory


def download_from_hub(entry: PretrainedModel, cache: Path, target: Path) -> Path:
    """Downloads the weights file of a catalog entry, and the `config.json` beside it, from the Hub.

    `convert` reads settings of the network from this `config.json`.

    Args:
      entry: catalog entry.
      cache: cache directory of huggingface_hub.
      target: path where the user can put the weights file if the download fails. Only the error
        message contains it.

    Returns:
      Path of the weights file in the cache.

    Raises:
      DeepLabError: a file is not in the cache and cannot be downloaded.
    """
    import_hub()
    from huggingface_hub import hf_hub_download

    try:
        # The library's warnings are suppressed; the error contains the same information.
        with quiet_logger("huggingface_hub"):
            for name in (CONFIGURATION, entry.hub_file):
                found = hf_hub_download(entry.hub_repository, name, cache_dir=cache, token=False)
    except Exception as error:
        # Exceptions of huggingface_hub and of its HTTP library, or ValueError if offline.
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise by_hand(entry.address, target, reason) from error
    return Path(found)


@contextlib.contextmanager
def hub_errors(failed: str) -> Iterator[None]:
    """Suppresses warnings of huggingface_hub, and converts exceptions to one-line errors.

    Args:
      failed: beginning of the message, such as "cannot download hf://user/name".

    Raises:
      DeepLabError: the `with` block raised an exception.
    """
    try:
        with quiet_logger("huggingface_hub"):
            yield
    except DeepLabError:
        raise
    except Exception as error:
        raise DeepLabError(f"{failed}: {_reason(error)}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException) -> str:
    """Returns a line that states why a request to the Hub failed, and what to do."""
    from huggingface_hub import constants

    chain = list(_causes(error))
    full = next((one for one in chain if getattr(one, "errno", None) == errno.ENOSPC), None)
    if full is not None:
        return "no space is left on the disk; free some, or set HF_HOME to another disk"
    names = {type(one).__name__ for one in chain}
    if "GatedRepoError" in names:
        return "the owner has not granted access; request it on the page of the repository"
    if "RevisionNotFoundError" in names:
        return "the repository has no such revision"
    responses = (getattr(one, "response", None) for one in chain)
    response = next((one for one in responses if one is not None), None)
    if response is not None:
        status = response.status_code
        if status == 401 and "RepositoryNotFoundError" in names:
            # The Hub answers 401 for a repository that the request may not see.
            return f"{HTTP_REASONS[404]} (HTTP 401); check the name, or run `hf auth login`"
        if status in HTTP_REASONS:
            return f"{HTTP_REASONS[status]} (HTTP {status})"
        # huggingface_hub raises a ValueError with the faults of the metadata of a model card.
        is_value = type(error) is ValueError
        stated = str(error) if is_value else getattr(error, "server_message", None) or ""
        details = f": {' '.join(stated.split())}" if stated else ""
        return f"the server refused the request (HTTP {status}){details}"
    if constants.HF_HUB_OFFLINE:
        return "it is not in the cache, and HF_HUB_OFFLINE is set"
    message = " ".join(str(chain[-1]).split()) or type(chain[-1]).__name__
    if names & {"ConnectError", "ConnectionError", "ConnectTimeout", "LocalEntryNotFoundError"}:
        return f"{constants.ENDPOINT} cannot be reached ({message}); check the network"
    return message
