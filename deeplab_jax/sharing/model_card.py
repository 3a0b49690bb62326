"""Model card of a shared model: `README.md` with the metadata that the Hub reads."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deeplab_jax.checkpointing import CLASSIFICATION, StoredModel
from deeplab_jax.config import flatten
from deeplab_jax.evaluation.report import SUMMARY, settings_lines
from deeplab_jax.labels import VOID_LABEL
from deeplab_jax.pretrained import list_pretrained
from deeplab_jax.pretrained.hub import (
    PICTURE,
    HubAddress,
    import_hub,
    is_hub_address,
    parse_hub_address,
)
from deeplab_jax.sharing.training_facts import TrainingFacts

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

# Placeholder in the card of a directory that was not written for a repository.
ANY_REPOSITORY = "USER/NAME"
PROJECT = "deeplab_jax"
MEAN_IOU = "mean_iou"
# Settings of an evaluation that the list of settings omits: the model is that of the card, and
# dataset and split are in the title.
UNSTATED_SETTINGS = ("model", "dataset", "split")
# Entries of `ModelDescription.source` that state how the published weights were changed.
CHANGES = {"fine_tuned", "pruned", "quantized"}


@dataclasses.dataclass(frozen=True)
class CardNotes:
    """Statements of the user for the model card.

    Attributes:
      repository: repository on the Hub, such as `user/name`; empty: not known yet.
      license: identifier of a license on the Hub, such as `apache-2.0`; empty: the license of the
        published weights if it is known, otherwise no license is stated.
      metrics: contents of the `metrics.json` of each evaluation of this model.
      about: paragraph for the start of the card.
      picture: caption of `example.png`; empty: there is no picture.
      revision: branch of the repository; empty: the branch `main`.
    """

    repository: str = ""
    license: str = ""
    metrics: Sequence[Mapping[str, Any]] = ()
    about: str = ""
    picture: str = ""
    revision: str = ""


def model_card(stored: StoredModel, training: TrainingFacts | None, notes: CardNotes) -> str:
    """Returns the text of `README.md`: YAML metadata, then Markdown.

    Args:
      stored: model to describe.
      training: facts about the training run; None: the model is not from a workdir.
      notes: statements of the user.
    """
    hub = import_hub()
    metadata = card_metadata(stored, training, notes)
    body = "\n".join(_body(stored, training, notes))
    return str(hub.ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}"))


def license_of(stored: StoredModel, notes: CardNotes) -> str:
    """Returns the identifier of the license on the Hub; empty: no license is stated.

    If `notes` contains no license, the license of the published weights is returned.
    """
    return notes.license or str(stored.description.source.get("license", "")).lower()


def card_metadata(
    stored: StoredModel, training: TrainingFacts | None, notes: CardNotes
) -> "ModelCardData":
    """Returns the metadata of the model card."""
    hub = import_hub()
    description = stored.description
    is_classifier = description.task == CLASSIFICATION
    task = "image-classification" if is_classifier else "image-segmentation"
    results = list(_results(task, training, notes))
    backbone = stored.description.overrides.get("backbone")
    own = [] if is_classifier else ["semantic-segmentation", "deeplab"]
    # The Hub only accepts the identifiers of its own list; for all others it requires a name.
    license_id = license_of(stored, notes)
    is_listed = " " not in license_id
    named = {} if is_listed else {"license_name": license_id}
    trained_on = sorted(_trained_on(stored, training))
    return hub.ModelCardData(
        library_name=PROJECT,
        pipeline_tag=task,
        license=(license_id if is_listed else "other") or None,
        tags=list(filter(None, [*own, description.architecture, backbone, "jax", "flax"])),
        datasets=trained_on or None,
        base_model=_base_model(training),
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=_title(notes, stored) if results else None,
        eval_results=results or None,
        **named,
    )


def _trained_on(stored: StoredModel, training: TrainingFacts | None) -> set[str]:
    """Returns the names of the datasets that the model was trained on."""
    source = stored.description.source
    names = {str(source.get("trained_on", "")).partition("/")[0]}
    names |= {str(source.get("fine_tuned", {}).get("on", ""))}
    names |= {training.data["train"]["name"]} if training and "train" in training.data else set()
    return names - {"", "None"}


def _base_model(training: TrainingFacts | None) -> str | None:
    """Returns the Hub repository of the initial weights; None if they are not from the Hub."""
    if training is None or not training.init_from:
        return None
    if is_hub_address(training.init_from):
        return parse_hub_address(training.init_from).repository
    return list_pretrained()[training.init_from].hub_repository or None


def _results(task: str, training: TrainingFacts | None, notes: CardNotes) -> Iterator["EvalResult"]:
    """Yields the evaluation results for the metadata, as fractions.

    These are the metrics in `notes`. If there are none, the validation mean IoU of the training run
    is used, if it is known.
    """
    hub = import_hub()
    for metrics in notes.metrics:
        settings = metrics["settings"]
        data, split = str(settings["dataset"]), str(settings["split"])
        stated = {name: value for name, value in settings.items() if name not in UNSTATED_SETTINGS}
        for key, title in SUMMARY.items():
            if metrics.get(key) is not None:
                yield hub.EvalResult(
                    task_type=task,
                    dataset_type=data,
                    dataset_name=f"{data} {split}",
                    dataset_split=split,
                    metric_type=key,
                    metric_name=title,
                    metric_value=metrics[key],
                    metric_args=stated,
                )
    if training and training.validation_mean_iou is not None and not notes.metrics:
        data, split = _validation(training)
        yield hub.EvalResult(
            task_type=task,
            dataset_type=data,
            dataset_name=f"{data} {split}",
            dataset_split=split,
            metric_type=MEAN_IOU,
            metric_name=SUMMARY[MEAN_IOU],
            metric_value=training.validation_mean_iou,
            metric_args={"step": training.step, "scales": [1.0], "flip": False},
        )


def _validation(training: TrainingFacts) -> tuple[str, str]:
    facts = training.data.get("validation", {})
    return str(facts.get("name", "validation")), str(facts.get("split", "validation"))


def _title(notes: CardNotes, stored: StoredModel) -> str:
    return notes.repository.rpartition("/")[2] or stored.description.architecture


def _body(stored: StoredModel, training: TrainingFacts | None, notes: CardNotes) -> Iterator[str]:
    """Yields the lines of the card below the metadata."""
    yield from (f"# {_title(notes, stored)}", "")
    if notes.about:
        yield from (notes.about, "")
    yield from _network_lines(stored)
    if notes.picture:
        yield from ("", f"![{notes.picture}]({PICTURE})", "", f"*{notes.picture}*")
    yield from ("", "## How to load it", "", *_loading_lines(stored, notes))
    yield from ("", "## Classes", "", *_class_lines(stored))
    yield from ("", "## Data", "", *_data_lines(stored, training))
    if training is not None:
        yield from ("", "## Recipe", "", *_recipe_lines(training))
    yield from ("", "## Metrics", "", *_metrics_lines(stored, training, notes.metrics))
    yield from ("", "## License", "", *_license_lines(stored, training, notes))


def _network_lines(stored: StoredModel) -> Iterator[str]:
    description, source = stored.description, stored.description.source
    options = description.overrides
    kind = "image classification" if description.task == CLASSIFICATION else "semantic segmentation"
    count = sum(_size(leaf) for leaf in _leaves(stored.variables["params"]))
    bands = options.get("in_channels", 3)
    facts = [
        f"`{description.architecture}` on `{options.get('backbone')}`",
        f"{len(description.class_names)} classes",
        f"{count:,} parameters",
    ]
    if "output_stride" in options:
        facts.append(f"output stride {options['output_stride']}")
    if bands != 3:
        facts.append(f"{bands} bands")
    yield f"Network for {kind}, to be loaded with `{PROJECT}`: {', '.join(facts)}."
    if "quantized" in source:
        quantized = source["quantized"]
        yield f"Quantized: weights {quantized['weights']}; activations {quantized['activations']}."
    if "pruned" in source:
        pruned = ", ".join(f"{name} {value}" for name, value in source["pruned"].items())
        yield f"Pruned: {pruned}."


def _leaves(variables: Mapping[str, Any]) -> Iterator[Any]:
    return (leaf for _, leaf in flatten(variables))


def _size(leaf: Any) -> int:
    return int(leaf.size)


def _loading_lines(stored: StoredModel, notes: CardNotes) -> Iterator[str]:
    address = HubAddress(notes.repository or ANY_REPOSITORY, notes.revision)
    bands = stored.description.image_bands
    image = f"{bands.dtype} [H, W, {bands.count}]"
    is_classifier = stored.description.task == CLASSIFICATION
    yield from ("```python", "import deeplab_jax", "")
    yield f'predictor = deeplab_jax.load("{address}")'
    if is_classifier:
        yield f"ranking = predictor(image)  # {image}"
    else:
        yield f"class_map = predictor(image)  # {image} → int32 [H, W]"
    yield from ("```", "", "```bash")
    yield f"deeplab-jax predict --model={address} --output=masks photo.jpg"
    yield "```"
    if not notes.repository:
        yield from ("", "The path of this directory can be given in place of the address.")


def _class_lines(stored: StoredModel) -> Iterator[str]:
    description = stored.description
    if description.task == CLASSIFICATION:
        yield f"{len(description.class_names)} classes; `model.json` lists them."
        return
    yield from ("| index | class | color |", "|---|---|---|")
    for index, (name, color) in enumerate(
        zip(description.class_names, description.palette, strict=True)
    ):
        yield f"| {index} | {_cell(name)} | #{bytes(color).hex()} |"
    if len(description.class_names) <= VOID_LABEL:
        yield from ("", f"The label {VOID_LABEL} marks void pixels in the truth.")


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|")


def _data_lines(stored: StoredModel, training: TrainingFacts | None) -> Iterator[str]:
    source = stored.description.source
    facts = training.data if training else {}
    for title, key in (("Training", "train"), ("Validation", "validation")):
        if key in facts:
            one = facts[key]
            yield f"* {title}: {one['name']}, split {one['split']}, {one['num_images']} images"
    if not facts and "trained_on" in source:
        yield f"* Training: {source['trained_on']}"
    if "fine_tuned" in source:
        tuned = source["fine_tuned"]
        yield f"* Fine-tuning: {tuned['on']}, {tuned['steps']} steps"
    if source.get("quantized", {}).get("calibrated_on"):
        yield f"* Calibration: {source['quantized']['calibrated_on']}"
    if "page" in source:
        yield f"* The weights were trained by their publisher: {source['page']}"
    elif not facts and "trained_on" not in source:
        yield "The training data are not recorded in `model.json`."


def _recipe_lines(training: TrainingFacts) -> Iterator[str]:
    yield f"Checkpoint of step {training.step}. Config fields that differ from their defaults:"
    yield from ("", "| field | value |", "|---|---|")
    for name, value in sorted(training.recipe.items()):
        yield f"| `{name}` | `{_cell(value)}` |"
    if training.init_from:
        yield f"| `training.init_from` | `{training.init_from}` |"


def _metrics_lines(
    stored: StoredModel, training: TrainingFacts | None, reports: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    for metrics in reports:
        settings = metrics["settings"]
        split = f"split {settings['split']}, {metrics['num_images']} images"
        yield f"### {settings['dataset']}, {split}"
        yield from ("", "| metric | % |", "|---|---|")
        for key, title in SUMMARY.items():
            if metrics.get(key) is not None:
                yield f"| {title} | {100 * metrics[key]:.2f} |"
        yield from ("", "| class | IoU, % |", "|---|---|")
        for name, iou in metrics["per_class_iou"].items():
            yield f"| {_cell(name)} | {'–' if iou is None else f'{100 * iou:.2f}'} |"
        stated = {name: value for name, value in settings.items() if name not in UNSTATED_SETTINGS}
        yield from ("", f"Settings: {'; '.join(settings_lines(stated))}.", "")
    if training and training.validation_mean_iou is not None:
        data, split = _validation(training)
        limit = training.recipe.get("evaluation.limit")
        first = f", first {limit} images" if limit else ""
        score = f"{100 * training.validation_mean_iou:.2f} %, one scale, no flip"
        yield f"Mean IoU in training, {data}, split {split}{first}, step {training.step}: {score}."
    elif not reports and stored.description.source.get("metrics"):
        is_changed = CHANGES & stored.description.source.keys()
        original = ", measured before they were changed" if is_changed else ""
        yield f"Published by the authors of the weights{original}:"
        yield from ("", *(f"* {line}" for line in stored.description.source["metrics"]))
    elif not reports:
        yield "None recorded. `deeplab-jax push --metrics=metrics.json` adds those of `evaluate`."


def _license_lines(
    stored: StoredModel, training: TrainingFacts | None, notes: CardNotes
) -> Iterator[str]:
    license_id = license_of(stored, notes)
    yield f"Weights: {license_id}." if license_id else "The license of the weights is not stated."
    if training and training.init_from in list_pretrained():
        entry = list_pretrained()[training.init_from]
        yield f"Initial weights: `{entry.name}`, {entry.license}, {entry.page}."
