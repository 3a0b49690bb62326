"""Which videos become which predictions; nothing is read or written here."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from deeplab_jax.data.listing import visible_files
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.file_jobs import check_targets

# What is a video by its name.
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


@dataclasses.dataclass(frozen=True)
class VideoJob:
    """One video, or camera, and what its prediction becomes.

    Attributes:
      source: path of the video, or the number of a camera.
      overlay: MP4 of the frames under the classes' colours.
      masks: directory of palette PNGs, one a frame: `000000.png` and so on.
    """

    source: Path | int
    overlay: Path
    masks: Path

    @property
    def image(self) -> Path:
        """What is read; a camera is no file."""
        return self.source if isinstance(self.source, Path) else Path(f"camera {self.source}")

    @property
    def targets(self) -> tuple[Path, ...]:
        """What is written."""
        return (self.overlay, self.masks)


def is_video(path: str | Path) -> bool:
    """Whether a path names a video, by its ending."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def plan_videos(
    paths: Sequence[str | Path], output: str | Path, *, overwrite: bool = False
) -> list[VideoJob]:
    """Decides what becomes of each video; reads and writes nothing.

    Args:
      paths: files, and folders whose videos are all taken, with those of their subfolders; what is
        neither a folder nor a video by its name is left to `plan_files`.
      output: directory of the predictions; paths below a given folder are kept below it.
      overwrite: replace targets that exist; of targets claimed twice the last wins.

    Raises:
      DeepLabError: a video is missing; a target would replace an input, exists or is claimed twice.
    """
    output, jobs = Path(output), []
    for path in map(Path, paths):
        if path.is_dir():
            inside = visible_files(path, VIDEO_SUFFIXES)
            # What an earlier run wrote is no input when the output lies inside the folder.
            own = output.resolve()
            jobs += [
                _job(video, output / video.relative_to(path))
                for video in inside
                if own == path.resolve() or own not in video.resolve().parents
            ]
        elif is_video(path):
            if not path.exists():
                raise DeepLabError(f"{path}: no such file or folder")
            jobs.append(_job(path, output / path.name))
    check_targets(jobs, overwrite)
    return jobs


def plan_camera(number: int, output: str | Path, *, overwrite: bool = False) -> VideoJob:
    """Decides what becomes of a camera's pictures.

    Raises:
      DeepLabError: a target exists.
    """
    job = _job(number, Path(output) / f"camera_{number}")
    check_targets([job], overwrite)
    return job


def _job(source: Path | int, target: Path) -> VideoJob:
    stem = target.with_suffix("")
    return VideoJob(
        source, stem.with_name(f"{stem.name}.mp4"), stem.with_name(f"{stem.name}_masks")
    )
