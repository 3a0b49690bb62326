"""Each statement of a page that something is refused or cannot be done has a test that shows it."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    *(
        page
        for folder in ("tutorials", "guides", "explanation")
        for page in sorted((ROOT / "docs" / folder).glob("*.md"))
    ),
    ROOT / "docs" / "faq.md",
    ROOT / "README.md",
]
STATEMENT = re.compile(r"\b(cannot|never|refus\w*)\b")
# Lines that state nothing about this package: headings, and sentences about other things.
NO_STATEMENT = re.compile(
    r"^#|message of a refusal|read that never returns"
    r"|small preset cannot"
    r"|error that names the file, \d+ read|be compared between images|their refusal|or its refusal"
)

# (words of the line, test that shows them), by page.
SHOWN = {
    "faults.md": [
        ("differ in config, data or", "faults/test_faults.py::test_processes_that_must_not"),
        ("second run in the same workdir", "training/test_lock.py::test_a_second_run_is_refused"),
        ("that finds no other process", "faults/test_faults.py::test_processes_that_must_not"),
        (
            "checkpoints that cannot be written",
            "training/test_checkpoints.py::test_a_directory_that_cannot_be_written",
        ),
        ("damaged image or mask", "faults/test_faults.py::test_spoilt_images_are_refused_by_name"),
        ("refuse damaged variables", "checkpointing/test_damage.py::test_readers_raise_one_line"),
    ],
    "deploy.md": [
        ("Other sizes are refused", "export/test_exported_networks.py::test_fixed_sizes_refuse"),
        ("everything else is refused", "export/test_engines.py::test_options_that_a_file_does"),
        ("refuses larger ones", "export/test_engines.py::test_a_file_of_one_size_pads_images"),
        (
            "`--verify` is therefore refused",
            "cli/test_export.py::test_mistakes_are_reported_before_any_work",
        ),
    ],
    "data.md": [
        ("is refused, and the message", "data/test_strangers_masks.py::test_spoilt_masks_are"),
        (
            "refuses files without these bands",
            "data/test_strangers_bands.py::test_a_model_of_bands_ref",
        ),
        ("need 8-bit RGB", "data/test_strangers_bands.py::test_spoilt_bands_give_one_line"),
        ("are never read", "data/test_strangers_annotations.py::test_unsafe_archives_are_refused"),
        ("TIFF of several pages", "data/test_strangers_large.py::test_a_page_is_read_by_its"),
        ("DICOM, NIfTI", "data/test_strangers_large.py::test_volumes_are_refused_by_name"),
        ("several frames or sizes", "data/test_one_picture.py::test_several_pictures_in_one_file"),
        ("RGB image with further bands", "data/test_one_picture.py::test_further_bands_of_a_tiff"),
        ("float, signed or 32-bit", "data/test_strangers_bands.py::test_spoilt_bands_give_one"),
        ("CMYK of more than 8", "data/test_strangers_bands.py::test_a_tiff_whose_values_would"),
        ("signed 8-bit numbers", "data/test_strangers_bands.py::test_a_tiff_whose_values_would"),
        (
            "An image that was found in this way is refused",
            "data/test_strangers_annotations.py::test_an_image_of_another_annotation_is_not_used",
        ),
        ("photograph with opacity", "data/test_one_picture.py::test_near_infrared_stored_as"),
        ("mask with opacity", "data/test_folder.py::test_objects_in_the_opacity_of_a_mixed_set"),
        ("palette masks that disagree", "data/test_folder.py::test_palettes_that_disagree"),
        ("mask of 1, 2, 4, 16 or 32", "data/test_masks.py::test_mask_values_that_are_not_ind"),
        ("mask as JPEG", "data/test_mask_files.py::test_formats_that_change_values"),
        ("mask as `.npy`", "data/test_strangers_masks.py::test_spoilt_masks_are_refused"),
        ("broken symbolic link", "data/test_strangers_masks.py::test_spoilt_masks_are_refused"),
        ("with the same name", "data/test_preparation.py::test_two_images_of_one_name"),
    ],
    "inference.md": [
        (
            "refused if a rate would",
            "inference/test_output_stride.py::test_impossible_output_strides_are_refused",
        ),
        ("above 179 million pixels", "inference/test_large_images.py::test_what_cannot_be_done"),
    ],
    "experiments.md": [
        ("cannot be shown here", "experiments/test_decided_claims.py::test_the_rule_decides"),
        (
            "cannot contain",
            "experiments/test_reports.py::test_grids_whose_values_would_share_one_training_run",
        ),
    ],
    "volumes.md": [
        ("DICOM and NIfTI files", "data/test_strangers_large.py::test_volumes_are_refused"),
        ("nothing is written", "data/test_strangers_large.py::test_the_recipe_refuses"),
    ],
    "pods.md": [
        (
            "`s3://` is refused",
            "training/test_workdir.py::test_buckets_that_do_not_work_are_refused_in_one_line",
        ),
    ],
    "training.md": [
        ("another config is refused", "training/test_workdir.py::test_another_config_is_refused"),
        ("other data is refused", "training/test_workdir.py::test_other_data_are_refused"),
        (
            "resuming with other settings is refused",
            "compression/test_compression_commands.py::test_only_the_same_model_and_settings",
        ),
    ],
    "few_labels.md": [
        ("the directory is refused", "inference/test_pseudo_labels.py::test_other_settings_and"),
        ("refuses other models", "inference/test_pseudo_labels.py::test_other_settings_and_models"),
    ],
    "pretrained.md": [
        (
            "without anti-aliasing. `convert` therefore refuses",
            "pretrained/test_codebases.py::test_classifiers_of_timm_with_anti_aliasing_are_refused",
        ),
        (
            "`evaluate` refuses classifiers",
            "inference/test_image_classification.py::test_classifiers_refuse_segmentation",
        ),
        (
            "Other variants are refused with the reason",
            "pretrained/test_codebases.py::test_unsupported_variants_are_refused_with_the_reason",
        ),
    ],
    "app.md": [
        ("never by a path", "app/test_model_names.py::test_pages_show_names_and_no_paths"),
        ("--max_megabytes", "app/test_http.py::test_a_file_that_is_too_large_is_not_taken"),
        ("--max_megapixels", "app/test_answers.py::test_limits"),
        ("--max_waiting", "app/test_answers.py::test_a_timed_out_request_is_refused"),
        ("never downloads images", "app/test_http.py::test_paths_that_were_not_uploaded"),
    ],
    "faq.md": [
        ("never predicts void", "losses/test_every_loss.py::test_void_pixels_are_as_if"),
        ("other images or class names", "training/test_workdir.py::test_other_data_are_refused"),
        ("training is refused", "training/test_run.py::test_one_value_per_pooled_channel"),
    ],
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_statement_is_shown_by_a_test(page):
    lines = [
        line
        for line in page.read_text("utf-8").splitlines()
        if STATEMENT.search(line) and not NO_STATEMENT.search(line)
    ]
    rows = SHOWN.get(page.name, [])
    without = [line for line in lines if not any(words in line for words, _ in rows)]
    assert not without, "name a test for these lines"
    gone = [words for words, _ in rows if not any(words in line for line in lines)]
    assert not gone, "these words are not on the page any more"


@pytest.mark.parametrize("page", SHOWN)
def test_the_tests_exist(page):
    for _, reference in SHOWN[page]:
        file, _, name = reference.partition("::")
        text = (ROOT / "tests" / file).read_text("utf-8")
        assert re.search(rf"^def {name}", text, re.MULTILINE), reference
