"""usage: deeplab-jax predict --model=M --output=DIR PATH… [--flag=value …]

Writes two files per image. NAME.png is a palette PNG whose pixel values are class indices.
NAME_overlay.png shows the image with the class colors drawn over it. With more than 255 classes,
NAME.png is 16-bit gray, and NAME_colors.png shows the class colors. A PATH is an image, a video or
a folder. Folders are searched recursively, and DIR receives the same subfolders.

M is the workdir of a training run, a model directory, the name of pretrained weights (downloaded
on first use), or a .onnx, .tflite or .stablehlo file that `export` wrote. If the model
classifies whole images, the command instead writes NAME_classes.json with the five most probable
classes.

For a video, the command writes NAME.mp4, which shows the frames with the class colors drawn over
them, and the folder NAME_masks, which contains a palette PNG per frame. Frames are downsampled to
fit the inference size of the network, unless --tile is given. --frame_size=HxW sets another size;
--frame_size=full disables downsampling. --camera=0 reads the first camera until --seconds have
passed or you press Ctrl-C.

With --tile, images for an RGB model are read, predicted and written in parts, so that a large TIFF
fits in memory. With --crf, --probabilities, --submission or --overlay_bands, they are instead read
as a whole. Without these flags, the results for an image of more than 179 million pixels are the
TIFFs NAME.tif and NAME_overlay.tif.

With --submission=voc or --submission=cityscapes, the command instead writes files for the
evaluation server of PASCAL VOC or Cityscapes.

With --engine=onnx or --engine=tflite, the network runs in ONNX Runtime or LiteRT instead of JAX.
The masks are those of JAX, up to float32 rounding. On CPUs, the fastest option is a TFLite file
that computes in 8-bit integers (`export --calibrate`).

All images are checked before anything is written. If an image is damaged, the command fails; with
--skip_bad, such images are skipped and counted. Inputs are never overwritten.

examples:
  deeplab-jax predict --model=runs/camvid --output=predictions photos street.jpg
  deeplab-jax predict --model=deeplabv3_mobilenetv2_voc --output=predictions photos
  deeplab-jax predict --model=deeplabv3_mobilenetv2_dm05_voc_tflite --output=predictions walk.mp4
  deeplab-jax predict --model=runs/aerial --tile=1025x1025 --output=predictions survey.tif
  deeplab-jax predict --model=runs/camvid --engine=onnx --output=predictions photos
  deeplab-jax predict --model=camvid8.tflite --output=predictions photos
"""

import math
from typing import TYPE_CHECKING

from deeplab_jax import checkpointing, inference, pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags, parse_size
from deeplab_jax.data.volumes import refuse_ignored_volumes
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, is_exported
from deeplab_jax.listing import IMAGE_SUFFIXES, UNREAD_PICTURES, visible_files

if TYPE_CHECKING:
    from deeplab_jax.data.descriptors import Bands

# Flags that do not apply to a model that classifies whole images.
OF_PIXELS = (
    *("output_stride", "scales", "flip", "tile", "overlap", "crf", "submission"),
    "overlay_bands",
)


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define_model(engine=True)
    flags.define_inference()
    flags.define("output", None, "Directory for the files to write.")
    flags.define(
        "probabilities",
        False,
        "Also write NAME_probabilities.npz with two arrays: probabilities, of dtype float16 and "
        "shape [height, width, classes], and class_names.",
    )
    flags.define(
        "submission",
        None,
        "Write files for the evaluation server of this benchmark, instead of masks and overlays.",
        choices=["voc", "cityscapes"],
    )
    flags.define(
        "frame_size",
        None,
        "Maximum height x width in pixels at which the network processes video frames; larger "
        "frames are downsampled. --frame_size=full disables downsampling (default: inference size "
        "of the model; full if --tile is given).",
    )
    flags.define("camera", int, "Index, from 0, of the camera to read.")
    flags.define("seconds", float, "Maximum duration to read from a video or camera, in seconds.")
    flags.define(
        "overlay_bands",
        list,
        "Bands that overlays show, as positions from 1, separated by commas: three bands as red, "
        "green and blue, or one band as gray (default: 1,2,3).",
    )
    flags.define(
        "page",
        int,
        "Number of the page to read from TIFF files with several pages (default: such "
        "files are an error).",
        least=1,
    )
    flags.define("overwrite", False, "Replace predictions that already exist.")
    flags.define("skip_bad", False, "Skip images that cannot be read, instead of failing.")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Predicts images and videos, and prints where the output files are."""
    flags.require("model", "output")
    # Checks the flags before weights are downloaded.
    flags.inference_options()
    _frame_size(flags)
    videos = _plan_videos(flags, paths)
    paths = [path for path in paths if not inference.is_video(path)]
    if not videos:
        _refuse_flags_of_videos(flags)
    if paths or not videos:
        paths = _without_images(paths, flags.output, videos)
    _warn_of_unread_pictures(paths, console)
    if videos:
        _refuse_flags_of_images(flags, videos[0], has_images=bool(paths))
    task, class_names, bands = _read_description(flags, console)
    if videos and task == checkpointing.CLASSIFICATION:
        raise DeepLabError(
            f"{flags.model} classifies whole images and cannot predict videos; give images"
        )
    if paths:
        if task == checkpointing.CLASSIFICATION:
            _classify(flags, paths, console)
        else:
            _segment(flags, paths, videos, bands, len(class_names), console)
    if videos:
        _predict_videos(flags, videos, console)


def _read_description(flags: Flags, console: Console) -> "tuple[str, tuple[str, ...], Bands]":
    """Returns the task, the class names and the image bands of the model that --model selects."""
    if is_exported(flags.model):
        predictor = _load(flags, console)
        return checkpointing.SEGMENTATION, predictor.class_names, predictor.bands
    description = checkpointing.read_description(pretrained.locate(flags.model, console))
    return description.task, description.class_names, description.image_bands


def _load(flags: Flags, console: Console) -> "inference.Predictor":
    return flags.load_predictor(console).with_options(flags.inference_options())


def _plan_videos(flags: Flags, paths: list[str]) -> "list[inference.VideoJob]":
    if flags.seconds is not None and not 0 < flags.seconds < math.inf:
        raise DeepLabError(f"--seconds={flags.seconds} is not legal; give a finite number above 0")
    if flags.submission:
        _refuse_videos(flags, paths)
        return []
    videos = inference.plan_videos(paths, flags.output, overwrite=flags.overwrite)
    if flags.camera is not None:
        videos.append(inference.plan_camera(flags.camera, flags.output, overwrite=flags.overwrite))
    if videos and flags.probabilities:
        raise DeepLabError("probabilities cannot be written for videos; omit --probabilities")
    return videos


def _refuse_videos(flags: Flags, paths: list[str]) -> None:
    """Raises an error if a video or camera is given together with --submission."""
    videos = [path for path in paths if inference.is_video(path)]
    if flags.camera is not None:
        videos.append(f"--camera={flags.camera}")
    if videos:
        raise DeepLabError(
            f"{videos[0]} is a video, but --submission={flags.submission} writes class maps of "
            "images; give images only, or omit --submission"
        )


def _refuse_flags_of_videos(flags: Flags) -> None:
    """Raises an error if a flag that applies only to videos and cameras is given."""
    given = [name for name in ("frame_size", "seconds") if not flags[name].using_default_value]
    if given:
        raise DeepLabError(
            f"--{given[0]} applies to videos and cameras only, but none is given; omit "
            f"--{given[0]}, or give a video or --camera"
        )


def _refuse_flags_of_images(flags: Flags, video: "inference.VideoJob", *, has_images: bool) -> None:
    """Raises an error if a flag that does not apply to videos would be ignored.

    Args:
      flags: flags of the command.
      video: one of the videos and cameras to predict.
      has_images: whether images are predicted, too. --page then applies to them.
    """
    given = [
        name
        for name, applies in (("overlay_bands", False), ("page", has_images))
        if not flags[name].using_default_value and not applies
    ]
    if given:
        raise DeepLabError(
            f"--{given[0]} applies to images only, but {video.image} is a video; omit "
            f"--{given[0]}, or predict images and videos in separate runs"
        )


def _frame_size(flags: Flags) -> tuple[int, int] | None:
    """Returns the (H, W) that --frame_size gives; None if it is not given, or if it is `full`."""
    return None if flags.frame_size == "full" else parse_size(flags.frame_size)


def _without_images(paths: list[str], output: str, videos: "list[inference.VideoJob]") -> list[str]:
    """Returns the paths to search for images, or [] if there are only videos.

    Args:
      paths: paths on the command line that are not video files.
      output: directory of the predictions, which is not searched for images.
      videos: all videos to predict, including the camera.

    Returns:
      `paths`, or [] if they are folders without images and there are videos.

    Raises:
      DeepLabError: a path does not exist or is in a bucket, `output` is a file, there are neither
        images nor videos, or a folder contains a medical volume, but no image and no video.
    """
    inputs = [video.image for video in videos]
    try:
        images = [image for image, _ in inference.find_images(paths, output)]
    except DeepLabError:
        if not videos or not all(as_path(path).is_dir() for path in paths):
            raise
        images = []
    refuse_ignored_volumes(paths, images + inputs)
    return paths if images else []


def _warn_of_unread_pictures(paths: list[str], console: Console) -> None:
    """Warns of pictures in the given folders that are left out because of their suffix."""
    folders = [folder for folder in map(as_path, paths) if folder.is_dir()]
    unread = [file for folder in folders for file in visible_files(folder, UNREAD_PICTURES)]
    if unread:
        suffixes = sorted({file.suffix.lower() for file in unread})
        console.warning(
            f"files that end in {', '.join(suffixes)} are left out ({len(unread)}, the first is "
            f"{unread[0]}), because folders are searched for {', '.join(IMAGE_SUFFIXES)}; convert "
            "them to PNG"
        )


def _predict_videos(flags: Flags, videos: "list[inference.VideoJob]", console: Console) -> None:
    predictor = _load(flags, console)
    # Tiles serve to process large frames, so frames are not downsampled to the size of a tile.
    limited = flags.frame_size or flags.tile
    limit = _frame_size(flags) if limited else predictor.inference_size
    for job in videos:
        report = inference.predict_video(predictor, job, console, limit, flags.seconds)
        console.print(f"{job.overlay}: {report}")


def _segment(
    flags: Flags,
    paths: list[str],
    videos: "list[inference.VideoJob]",
    bands: "Bands",
    num_classes: int,
    console: Console,
) -> None:
    server, overwrite = flags.submission, flags.overwrite
    shown = _overlay_bands(flags, bands.count)
    if server and flags.probabilities:
        raise DeepLabError(
            "--submission cannot be combined with --probabilities: evaluation servers accept "
            "class maps only; omit --probabilities"
        )
    if server and shown:
        raise DeepLabError(
            "--submission cannot be combined with --overlay_bands, because it writes no overlays; "
            "omit --overlay_bands"
        )
    by_rows = flags.tile is not None and flags.crf is None and not server and bands.are_pictures
    # With --overlay_bands, each image is processed in memory; see `predict_files`.
    by_rows = by_rows and shown is None
    if server:
        jobs = inference.plan_submission(paths, flags.output, server, overwrite=overwrite)
    else:
        kinds = {"probabilities": flags.probabilities, "num_classes": num_classes}
        jobs = inference.plan_files(
            paths, flags.output, overwrite=overwrite, by_rows=by_rows, page=flags.page, **kinds
        )
    inference.check_masks(videos, jobs)
    jobs = inference.readable_files(
        jobs,
        skip_bad=flags.skip_bad,
        bands=bands,
        reporter=console,
        by_rows=by_rows and not flags.probabilities,
        page=flags.page,
    )
    predictor = _load(flags, console)
    if predictor.fixed_size and not flags.tile:
        from deeplab_jax.data.images import read_image

        # Sizes are checked before anything is written.
        for job in jobs:
            try:
                image = read_image(job.image, bands=bands, page=flags.page)
                predictor.check_size(image.shape[:2])
            except DeepLabError as error:
                raise DeepLabError(f"{job.image}: {error}") from None
    if server:
        inference.check_submission(predictor, server)
        inference.write_submission(predictor, jobs, server, console, page=flags.page)
    else:
        inference.predict_files(predictor, jobs, console, shown, page=flags.page)
    what = f"files for the {server} server" if server else "predictions"
    console.print(f"{len(jobs)} {what} are in {flags.output}")


def _overlay_bands(flags: Flags, count: int) -> tuple[int, ...] | None:
    given = flags.overlay_bands
    if not given:
        return None
    if len(given) not in (1, 3) or not all(
        number.isdecimal() and 1 <= int(number) <= count for number in given
    ):
        raise DeepLabError(
            f"--overlay_bands={','.join(given)} is not legal; give one or three numbers from 1 to "
            f"{count}, the number of bands that the model takes"
        )
    return tuple(map(int, given))


def _classify(flags: Flags, paths: list[str], console: Console) -> None:
    if flags.probabilities:
        raise DeepLabError(
            f"{flags.model} classifies whole images: there are no probabilities of pixels; "
            "omit --probabilities"
        )
    given = [name for name in OF_PIXELS if not flags[name].using_default_value]
    if given:
        raise DeepLabError(
            f"{flags.model} classifies whole images; omit --{', --'.join(given)}, which only "
            "segmentation models support"
        )
    jobs = inference.plan_classifications(paths, flags.output, overwrite=flags.overwrite)
    jobs = inference.readable_files(
        jobs, skip_bad=flags.skip_bad, reporter=console, page=flags.page
    )
    classifier = flags.load_predictor(console)
    found = inference.classify_files(classifier, jobs, console, page=flags.page)
    for job, classes in zip(jobs, found, strict=True):
        shown = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in classes)
        console.print(f"{job.image}: {shown}")
    console.print(f"{len(jobs)} predictions are in {flags.output}")
