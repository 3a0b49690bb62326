"""Upload of a shared model to the Hugging Face Hub."""

import re
from pathlib import Path

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.hub import (
    CARD,
    MODEL_FILES,
    PICTURE,
    HubAddress,
    check_repository,
    hub_errors,
    import_hub,
)

REVISION = re.compile(r"[\w][\w./-]*", re.ASCII)


def is_shared_model(directory: Path) -> bool:
    """Returns whether a directory contains a model in safetensors and its model card."""
    return all((directory / name).is_file() for name in (*MODEL_FILES, CARD))


def check_upload(address: HubAddress) -> None:
    """Checks repository name, branch name, token and offline mode; sends no request to the Hub.

    Raises:
      DeepLabError: the upload is not possible; the message states what to do.
    """
    check_repository(address.repository, f"--repo={address.repository}")
    if address.revision is not None and not REVISION.fullmatch(address.revision):
        raise DeepLabError(
            f"--revision={address.revision} is not the name of a branch; use letters, digits, and "
            "the characters - _ . /, and begin with a letter, a digit or _"
        )
    hub = import_hub()
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise DeepLabError(
            "push cannot upload while HF_HUB_OFFLINE is set; unset it, or write a directory with "
            "--output"
        )
    if not hub.get_token():
        raise DeepLabError(
            "push requires a token of the Hugging Face Hub with write access; run `hf auth login`, "
            "or set HF_TOKEN"
        )


def upload_model(directory: Path, address: HubAddress, *, private: bool, message: str) -> str:
    """Uploads the files of a shared model in one commit, so that all of them or none change.

    Args:
      directory: directory of the model.
      address: repository, created if missing, and branch, created from `main` if missing.
      private: whether the repository must be private.
      message: message of the commit.

    Returns:
      URL of the commit.

    Raises:
      DeepLabError: the upload failed, or the repository is public although `private` is True.
    """
    check_upload(address)
    hub = import_hub()
    with hub_errors(f"cannot upload to {address}"):
        api = hub.HfApi(token=hub.get_token())
        # With None, the default visibility of the user or organization applies.
        api.create_repo(address.repository, private=private or None, exist_ok=True)
        if private and not api.repo_info(address.repository).private:
            raise DeepLabError(
                f"{address.repository} exists and is public, so --private is not possible; change "
                "its visibility on its page, or give another repository"
            )
        if address.revision:
            api.create_branch(address.repository, branch=address.revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=address.repository,
            folder_path=directory,
            revision=address.revision,
            allow_patterns=[*MODEL_FILES, CARD, PICTURE],
            commit_message=message,
        )
    return str(commit.commit_url)
