"""usage: deeplab-jax app [--model=M,…] [--flag=value …]

Serves a web page and an HTTP API for predictions. The page takes images by drag and drop or from
the camera. The page and the API return the mask, overlay, legend, class areas and computation time.
Only this machine can connect to the server, unless --host is given. Without --model, the page
offers all pretrained segmentation models, which are downloaded on first use.

examples:
  deeplab-jax app --model=runs/camvid
  deeplab-jax app --model=models/voc,models/street --port=8000
"""

import threading

from deeplab_jax import checkpointing, loading, pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import ENGINE_HELP, Flags
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import ENGINES

# Maximum value of the limits. Python cannot wait for much more seconds, or for infinitely many.
LARGEST = 10**9


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define(
        "model",
        [],
        "Models that the page offers, separated by commas: workdirs of training runs, model "
        "directories, or names that `deeplab-jax models` lists (default: all pretrained "
        "segmentation models). The first model is selected when the page opens. The page shows "
        "only the last parts of directory paths.",
    )
    flags.define("engine", None, ENGINE_HELP, choices=list(ENGINES))
    flags.define(
        "host",
        "127.0.0.1",
        "Network address to listen on. With 0.0.0.0, the server listens on all interfaces.",
    )
    flags.define("port", 7860, "Port to listen on, from 1 to 65535.")
    flags.define("max_megabytes", 10.0, "Maximum size of an uploaded image file, in megabytes.")
    flags.define("max_megapixels", 24.0, "Maximum number of pixels of an image, in megapixels.")
    flags.define("max_seconds", 30.0, "Request timeout, in seconds.")
    flags.define(
        "max_waiting", 64, "Maximum number of requests in the queue; further requests are rejected."
    )


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Serves the page and the API until Ctrl-C."""
    if paths:
        raise DeepLabError(f"app takes no paths; did you mean --model={','.join(paths)}?")
    limits = (flags.max_megabytes, flags.max_megapixels, flags.max_seconds, flags.max_waiting)
    if not all(0 < limit <= LARGEST for limit in limits) or not 0 < flags.port < 2**16:
        raise DeepLabError(
            "--max_megabytes, --max_megapixels, --max_seconds and --max_waiting must be above 0 "
            f"and at most {LARGEST:,}, and --port must be in 1..65535"
        )
    # The import is local, so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.app.page import import_gradio, return_large_blocks, serving
    from deeplab_jax.app.service import Limits, SegmentationService, shown_names

    return_large_blocks()
    import_gradio()
    published = pretrained.list_pretrained().items()
    names = [name for name, model in published if model.task == checkpointing.SEGMENTATION]
    models = shown_names(flags.model or names)
    answers = SegmentationService(
        tuple(models),
        lambda name: loading.load(models[name], reporter=console, engine=flags.engine),
        Limits(*limits),
    )
    if flags.model:
        answers.warm_up(answers.names[0])
    with serving(answers, flags.host, flags.port) as address:
        console.print(f"the page is at {address}; Ctrl-C ends the server")
        threading.Event().wait()
