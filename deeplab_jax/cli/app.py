"""usage: deeplab-jax app [--model=M,…] [--flag=value …]

Serves a page to drop images on, or to use the camera, and the same over HTTP: mask, overlay,
legend, class areas and the time it took. It listens on this machine alone unless --host says
otherwise. Without --model all pretrained names can be picked; they are downloaded when first asked
for.

examples:
  deeplab-jax app --model=runs/camvid
  deeplab-jax app --model=models/voc,models/street --port=8000
"""

import threading

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.errors import DeepLabError


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags of the command."""
    own = {"flag_values": flags}
    absl_flags.DEFINE_list(
        "model",
        [],
        "Workdirs, model directories, or names that `deeplab-jax models` lists; the first is "
        "selected. The page shows a directory by its name, without its path (default: all "
        "pretrained names).",
        **own,
    )
    absl_flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0: all.", **own)
    absl_flags.DEFINE_integer("port", 7860, "Port to listen on.", **own)
    absl_flags.DEFINE_float("max_megabytes", 10, "Of an image file.", **own)
    absl_flags.DEFINE_float("max_megapixels", 24, "Of an image.", **own)
    absl_flags.DEFINE_float("max_seconds", 30, "That a request may wait for its result.", **own)
    absl_flags.DEFINE_integer("max_waiting", 64, "Requests in the queue.", **own)


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Serves until Ctrl-C."""
    if paths:
        raise DeepLabError(f"app takes no paths; did you mean --model={','.join(paths)}?")
    limits = (flags.max_megabytes, flags.max_megapixels, flags.max_seconds, flags.max_waiting)
    if min(limits) <= 0 or not 0 < flags.port < 2**16:
        raise DeepLabError("limits must be above 0 and --port within 1 to 65535")
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.app.page import import_gradio, return_large_blocks, serving
    from deeplab_jax.app.service import Answers, Limits, shown_names
    from deeplab_jax.checkpointing import SEGMENTATION
    from deeplab_jax.loading import load
    from deeplab_jax.pretrained import list_pretrained

    return_large_blocks()
    import_gradio()
    published = [name for name, model in list_pretrained().items() if model.task == SEGMENTATION]
    models = shown_names(flags.model or published)
    answers = Answers(
        tuple(models), lambda name: load(models[name], reporter=console), Limits(*limits)
    )
    if flags.model:
        answers.warm_up(answers.names[0])
    with serving(answers, flags.host, flags.port) as address:
        console.print(f"the page is at {address}; Ctrl-C ends it")
        threading.Event().wait()
