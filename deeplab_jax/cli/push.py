"""usage: deeplab-jax push --model=M --repo=USER/NAME | --output=DIR [--flag=value …]

Publishes a model on the Hugging Face Hub. The repository contains model.safetensors, model.json,
and the model card README.md. The model card describes the data, the recipe, the metrics and the
license, shows an example picture, and explains how to load the model. M is the workdir of a
training run, a model directory, or the name of pretrained weights. Uploading requires a token with
write access: run `hf auth login`, or set HF_TOKEN.

--output writes the same files into a directory. Without --repo, nothing is uploaded. You can then
edit README.md in this directory, and upload the directory by giving it as --model.

The example picture shows a photograph from the package scikit-image, or a synthetic image if the
package is not installed or the classes are those of the dataset `shapes`. It never shows an image
of a user's dataset. Models that classify whole images, or that take other images than 8-bit RGB,
have no example picture.

examples:
  deeplab-jax push --model=runs/camvid --repo=user/camvid-deeplab --metrics=runs/camvid/val \\
      --license=apache-2.0
  deeplab-jax push --model=runs/camvid --output=shared/camvid
  deeplab-jax predict --model=hf://user/camvid-deeplab --output=masks photo.jpg
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deeplab_jax import checkpointing, pretrained, sharing
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, check_new_directory

CARD_FLAGS = ("license", "metrics", "about")


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define_model()
    flags.define(
        "repo", None, "Repository on the Hub, as in user/name. It is created if it does not exist."
    )
    flags.define(
        "revision", None, "Branch to upload to. It is created if it does not exist (default: main)."
    )
    flags.define(
        "private",
        False,
        "Create a private repository. An existing repository must be private already.",
    )
    flags.define("message", "Upload model", "Message of the commit.")
    flags.define("output", None, "Directory to write. It must be empty or not exist yet.")
    flags.define(
        "license",
        None,
        "License of the model: a license identifier of the Hub, such as apache-2.0 (default: the "
        "license of the pretrained weights, if any).",
    )
    flags.define(
        "metrics",
        list,
        "Files whose metrics the model card shows, separated by commas: each is a metrics.json "
        "that `evaluate` wrote, or a directory that contains a metrics.json.",
    )
    flags.define("about", None, "Text of the first paragraph of the model card.")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Writes the model directory, uploads it if --repo is given, and prints where the model is."""
    flags.refuse("push", paths, "give the model as --model")
    flags.require("model")
    if not (flags.repo or flags.output):
        raise DeepLabError("--repo or --output must be given; --help shows an example")
    address = _address(flags)
    if flags.output:
        check_new_directory(as_path(flags.output))
    pretrained.check_reference(flags.model)
    with _directory(flags, console) as directory:
        if address is None:
            console.print(f"the model is in {directory}")
            return
        console.message(f"uploading to {address}")
        url = sharing.upload_model(directory, address, private=flags.private, message=flags.message)
        console.print(f"the model is at {address} ({url})")


def _address(flags: Flags) -> "pretrained.HubAddress | None":
    """Returns the address to upload to; None: the command only writes a directory.

    Raises:
      DeepLabError: a flag of the upload is given without --repo, or the upload is not possible.
    """
    if flags.repo:
        address = pretrained.HubAddress(flags.repo, flags.revision)
        sharing.check_upload(address)
        return address
    for name in ("revision", "private", "message"):
        if not flags[name].using_default_value:
            raise DeepLabError(f"--{name} requires --repo; give --repo, or omit --{name}")
    return None


@contextlib.contextmanager
def _directory(flags: Flags, console: Console) -> Iterator[Path]:
    """Yields the directory to upload.

    A model that already has a model card is uploaded from its own directory. Any other model is
    first written to --output, or to a temporary directory if --output is not given.

    Raises:
      DeepLabError: the model or a file of --metrics does not exist; or the model has a model card,
        and --output or one of CARD_FLAGS is given.
    """
    source = pretrained.locate(flags.model, console)
    if sharing.is_shared_model(source):
        given = [f"--{name}" for name in (*CARD_FLAGS, "output") if flags[name].value]
        if given:
            raise DeepLabError(
                f"{source} has a model card, README.md, which is uploaded unchanged; omit "
                f"{', '.join(given)}, and edit README.md instead"
            )
        yield source
        return
    with contextlib.ExitStack() as stack:
        if flags.output:
            directory = as_path(flags.output)
        else:
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="deeplab-jax-push-"))
            directory = Path(temporary) / "model"
        _write(flags, source, directory, console)
        yield directory


def _write(flags: Flags, source: Path, directory: Path, console: Console) -> None:
    from deeplab_jax.sharing.training_facts import read_metrics, read_training

    stored = checkpointing.read_model(source, flags.checkpoint, flags.ema)
    notes = sharing.CardNotes(
        repository=flags.repo or "",
        license=(flags.license or "").lower(),
        metrics=read_metrics(flags.metrics or [], stored.description),
        about=flags.about or "",
        revision=flags.revision or "",
    )
    training = read_training(source, stored.description, flags.checkpoint, flags.ema)
    if not (notes.license or stored.description.source.get("license")):
        console.warning("the model card states no license; give one, as in --license=apache-2.0")
    sharing.write_shared_directory(directory, stored, training, notes)
