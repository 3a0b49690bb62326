"""Converts medical volumes and their labels to a folder of slices for `deeplab-jax prepare folder`.

    pip install pydicom nibabel
    python examples/medical_volumes.py --output=liver --classes=background,liver,tumor \
        --window=-160,240 --val=patient3 \
        patient1=scan1.nii.gz:labels1.nii.gz patient2=dicom2/:labels2.nii.gz patient3=…
    deeplab-jax prepare folder --source=liver --classes=liver/classes.txt --name=liver \
        --data_dir=data

A volume is a NIfTI file, or a directory with the files of one DICOM series. Labels are a volume of
class indices on the same grid: NIfTI, or a DICOM series of the same slices. The script writes
`images/SPLIT/PATIENT/scanK/NNNN.png` and `masks/SPLIT/PATIENT/scanK/NNNN.png`. K is the number of
the argument PATIENT=VOLUME:LABELS, counted from 0 over all patients.

Prediction. Without labels, as in `--output=new --window=-160,240 patient4=scan4.nii.gz`, the script
writes `images/PATIENT/scanK/NNNN.png` for `deeplab-jax predict`.

Intensity. Values are mapped linearly, LOW to 0 and HIGH to 255, and clipped. DICOM values are
rescaled first, for CT to Hounsfield units. The same window must be used for prediction.

Orientation. All volumes are brought to the closest patient axes (nibabel's canonical RAS+), so that
the slices of every scanner look alike. Slices are axial, from the feet to the head, as a
radiologist views them: anterior is at the top, and the patient's right is at the left.

Splits. All slices of a patient belong to one split, since neighboring slices are nearly equal.
Give every scan of one patient the same name.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import zlib

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pydicom.misc
from nibabel.filebasedimages import ImageFileError

# Millimeters by which the positions of a volume and its labels may differ.
TOLERANCE = 1e-2
# Attributes that place a DICOM slice in the patient.
GEOMETRY = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
# Maximum number of classes in masks of 8 bits, in which 255 is void.
MAX_CLASSES = 255
# Errors of a missing, unreadable or unsuitable file.
FAULTS = (OSError, RuntimeError, ValueError, ImageFileError)
# From the axes of DICOM (left, posterior, superior) to those of NIfTI (right, anterior, superior).
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_volume(path: pathlib.Path) -> nibabel.Nifti1Image:
    """Reads a NIfTI file or a DICOM series along the closest patient axes, RAS+."""
    volume = read_series(path) if path.is_dir() else nibabel.load(path)
    if len(volume.shape) == 4 and volume.shape[3] == 1:
        volume = volume.slicer[..., 0]
    if len(volume.shape) != 3:
        raise ValueError(f"{path}: expected a volume of 3 dimensions, got {volume.shape}")
    return nibabel.as_closest_canonical(volume)


def read_series(directory: pathlib.Path) -> nibabel.Nifti1Image:
    """Reads the slices of a DICOM series, sorted by position, as a volume."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    slices = [pydicom.dcmread(path) for path in files if pydicom.misc.is_dicom(path)]
    if len(slices) < 2:
        raise ValueError(f"{directory}: {len(slices)} DICOM slices; a volume has at least two")
    if len({str(item.SeriesInstanceUID) for item in slices}) > 1:
        raise ValueError(f"{directory}: several series; give a directory with one of them")
    for item in slices:
        missing = [name for name in GEOMETRY if name not in item]
        if missing or item.get("NumberOfFrames", 1) != 1:
            reason = f"no {missing[0]}" if missing else "several frames in one file"
            raise ValueError(f"{item.filename}: {reason}; expected one slice of a series per file")
    along_columns, along_rows = np.reshape(slices[0].ImageOrientationPatient, (2, 3)).astype(float)
    normal = np.cross(along_columns, along_rows)
    slices.sort(key=lambda item: normal @ np.asarray(item.ImagePositionPatient, float))
    positions = np.array([item.ImagePositionPatient for item in slices], float)
    steps = np.diff(positions, axis=0)
    if np.abs(steps - steps[0]).max() > 0.1 * np.linalg.norm(steps[0]) or not steps[0].any():
        raise ValueError(f"{directory}: a slice is missing, or two slices have one position")
    row_spacing, column_spacing = map(float, slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along_columns * column_spacing, along_rows * row_spacing
    affine[:3, 2], affine[:3, 3] = steps[0], positions[0]
    values = [
        item.pixel_array * float(item.get("RescaleSlope", 1))
        + float(item.get("RescaleIntercept", 0))
        for item in slices
    ]
    return nibabel.Nifti1Image(
        np.stack(values, axis=-1).swapaxes(0, 1).astype(np.float32), LPS_TO_RAS @ affine
    )


def axial_slices(volume: nibabel.Nifti1Image) -> np.ndarray:
    """Returns the slices of a volume in RAS+ as a radiologist views them, [slices, H, W]."""
    values = np.asarray(volume.dataobj)
    return values[::-1, ::-1].transpose(2, 1, 0)


def to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Maps LOW..HIGH to 0..255; NaN becomes 0."""
    scaled = (np.nan_to_num(values.astype(np.float64), nan=low) - low) * (255 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def read_labels(
    path: pathlib.Path, images: pathlib.Path, volume: nibabel.Nifti1Image, num_classes: int
) -> np.ndarray:
    """Returns the slices of the labels of a volume, class indices or 255 for void, [slices, H, W].

    Args:
      path: NIfTI file or directory of a DICOM series with the labels.
      images: path of the volume, for errors.
      volume: the volume, which must have the same grid.
      num_classes: number of classes; 255 is void.
    """
    label_volume = read_volume(path)
    same_grid = volume.shape == label_volume.shape and np.allclose(
        volume.affine, label_volume.affine, atol=TOLERANCE
    )
    if not same_grid:
        raise ValueError(f"{path}: its grid is not that of {images}; resample the labels first")
    classes = axial_slices(label_volume)
    legal = (classes == np.rint(classes)) & (
        ((classes >= 0) & (classes < num_classes)) | (classes == 255)
    )
    if not legal.all():
        raise ValueError(f"{path}: expected 0..{num_classes - 1} or 255, got {classes[~legal][0]}")
    return classes.astype(np.uint8)


def convert(
    images: pathlib.Path,
    labels: pathlib.Path | None,
    output: pathlib.Path,
    place: pathlib.PurePath,
    window: tuple[float, float],
    num_classes: int,
) -> int:
    """Writes the slices of one volume and its labels; returns their number.

    Args:
      images, labels: NIfTI files or directories of a DICOM series; without labels, only images are
        written.
      output: directory that receives `images/` and `masks/`.
      place: split and patient, below both.
      window: values that become 0 and 255.
      num_classes: number of classes; 255 is void.
    """
    volume = read_volume(images)
    slices = {"images": axial_slices(volume)}
    if labels:
        slices["masks"] = read_labels(labels, images, volume, num_classes)
    for kind, planes in slices.items():
        (output / kind / place).mkdir(parents=True)
        for index, values in enumerate(planes):
            pixels = to_bytes(values, *window) if kind == "images" else values
            picture = PIL.Image.fromarray(np.ascontiguousarray(pixels))
            picture.save(output / kind / place / f"{index:04}.png")
    return len(slices["images"])


Volumes = list[tuple[str, pathlib.Path, pathlib.Path | None]]


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, Volumes]:
    """Returns the flags, and the patient, the scan and the labels of each volume."""
    summary, _, description = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("volumes", nargs="+", metavar="PATIENT=IMAGES[:LABELS]")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="new directory")
    parser.add_argument("--classes", default="", help="class names in the order of the labels")
    parser.add_argument("--window", required=True, metavar="LOW,HIGH", help="range of intensities")
    parser.add_argument("--val", default="", help="names of the patients for validation")
    options = parser.parse_args(arguments)
    volumes: Volumes = []
    for given in options.volumes:
        patient, _, paths = given.partition("=")
        images, colon, labels = paths.rpartition(":")
        images, labels = (images, labels) if colon else (labels, "")
        if not patient or not images:
            parser.error(f"{given}: expected PATIENT=IMAGES:LABELS, or PATIENT=IMAGES")
        volumes.append((patient, pathlib.Path(images), pathlib.Path(labels) if labels else None))
    with_labels = {labels is not None for *_, labels in volumes}
    if len(with_labels) > 1:
        parser.error("give labels for all volumes, or for none")
    if {bool(options.classes), bool(options.val)} != with_labels:
        parser.error("--classes and --val are required for volumes with labels, and only for these")
    if len(options.classes.split(",")) > MAX_CLASSES:
        parser.error(f"--classes: at most {MAX_CLASSES} classes fit into the 8-bit masks")
    patients, held_out = {patient for patient, *_ in volumes}, set(options.val.split(","))
    if options.val and (held_out - patients or not patients - held_out):
        parser.error(
            f"--val={options.val}: name some, but not all, of {', '.join(sorted(patients))}"
        )
    try:
        low, high = map(float, options.window.split(","))
    except ValueError:
        parser.error(f"--window={options.window}: give two numbers, as in --window=-160,240")
    if low >= high:
        parser.error(f"--window={options.window}: LOW must be below HIGH")
    if options.output.exists():
        parser.error(f"{options.output} exists; give a new directory")
    return options, volumes


def main(arguments: list[str] | None = None) -> None:
    """Converts the volumes that the command line names."""
    options, volumes = parse(arguments)
    low, high = map(float, options.window.split(","))
    classes, held_out = options.classes.split(","), options.val.split(",")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.output.parent, prefix=".writing-") as temporary:
        output = pathlib.Path(temporary, options.output.name)
        for number, (patient, images, labels) in enumerate(volumes):
            split = "" if labels is None else "val" if patient in held_out else "train"
            place = pathlib.PurePath(split, patient, f"scan{number}")
            try:
                count = convert(images, labels, output, place, (low, high), len(classes))
            except (EOFError, zlib.error) as error:
                raise ValueError(
                    f"{images} or its labels: damaged compressed file: {error}"
                ) from error
            print(f"{place.parent}: {count} slices of {images}")
        if options.classes:
            (output / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
        os.replace(output, options.output)


if __name__ == "__main__":
    try:
        main()
    except FAULTS as error:
        sys.exit(f"medical_volumes.py: {error}")
