"""The base of builders of VOC's kind: lists of names, `JPEGImages/` and a directory of masks."""

from pathlib import Path

from deeplab_jax.data.builders.paired_files import Pair, PairedFilesBuilder
from deeplab_jax.data.color_maps import read_text
from deeplab_jax.errors import DeepLabError

SPLITS = ("train", "val")


class ListedFilesBuilder(PairedFilesBuilder, skip_registration=True):
    """Reads the images that the lists name; a subclass says where lists and masks may lie."""

    LANDMARK = "JPEGImages"
    # Directories below the source; the first that is there counts.
    MASKS: tuple[str, ...]
    LISTS: tuple[str, ...]

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        masks, lists = self._first(self.MASKS), self._first(self.LISTS)
        return {split: self._pairs_of(lists / f"{split}.txt", masks) for split in SPLITS}

    def _pairs_of(self, listed: Path, masks: Path) -> dict[str, Pair]:
        images = self.source / self.LANDMARK
        return {
            stem: Pair(images / f"{stem}.jpg", masks / f"{stem}.png")
            for stem in listed_stems(listed)
        }

    def _first(self, directories: tuple[str, ...]) -> Path:
        for directory in directories:
            if (self.source / directory).is_dir():
                return self.source / directory
        raise DeepLabError(f"{self.source}: no {directories[0]}/ in it; {self.LAYOUT}")


def listed_stems(path: Path) -> list[str]:
    """Returns the stems of a list; some in circulation hold paths, and further columns."""
    lines = read_text(path, "list of images").splitlines()
    return [Path(line.split()[0]).stem for line in lines if line.strip()]
