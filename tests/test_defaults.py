"""Defaults that exist both in the config and in Python are equal."""

import ast
import itertools
import pathlib

import pytest

import deeplab_jax
from deeplab_jax import config as configs

PACKAGE = pathlib.Path(deeplab_jax.__file__).parent
DEFAULTS = dict(configs.flatten(configs.default()))
# Where parameters of the same names as a section's fields mean these fields.
ROOMS = {
    "augmentation": ("data/augmentation.py",),
    "data": ("data/pipeline.py", "data/prepared.py", "evaluation", "cli/flags.py"),
    "training": ("training", "planning"),
    "parallel": ("parallel", "training/state.py", "cli/evaluate.py"),
    "loss": ("losses", "training/step.py"),
    "schedule": ("training/optimizers.py",),
    "optimizer": ("training/optimizers.py",),
    "evaluation": ("evaluation", "cli/flags.py"),
}
# (file, function or class, parameter) that feeds a field of another name.
RENAMED = {
    ("training/optimizers.py", "step_schedule", "factor"): "schedule.drop_factor",
    ("losses/cross_entropy.py", "focal_loss", "gamma"): "loss.focal_gamma",
    ("losses/combined.py", "with_auxiliary", "weight"): "loss.auxiliary_weight",
    ("parallel/mesh.py", "make_mesh", "spatial"): "parallel.spatial",
    ("models/deeplab.py", "DeepLab", "remat"): "training.remat",
}
# Parameters that share a field's name and mean something else, or are another default on purpose.
OTHERS = {
    # The papers' 100 images to choose a CRF on.
    ("evaluation/crf_search.py", "search_crf", "limit"),
    # A type declares a flag of that type without a default.
    ("cli/flags.py", "define_dataset", "limit"),
    # None: found through DEEPLAB_DATA, else the config's "data".
    ("cli/flags.py", "DEFINE_string", "data_dir"),
    # None: the config's own.
    ("training/train.py", "train", "batch_size"),
    ("training/setup.py", "assemble", "batch_size"),
}


def parameters():
    """Yields (file, owner, name, default) of every parameter, dataclass field and flag."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            for owner, name, default in _defaults(node):
                file = path.relative_to(PACKAGE).as_posix()
                yield file, owner, name, _value(default)


def _defaults(node):
    if isinstance(node, ast.FunctionDef):
        given = [*node.args.posonlyargs, *node.args.args]
        paired = zip(reversed(given), reversed(node.args.defaults), strict=False)
        named = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        for parameter, default in itertools.chain(paired, named):
            if default is not None:
                yield node.name, parameter.arg, default
    elif isinstance(node, ast.ClassDef):
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and field.value is not None:
                yield node.name, field.target.id, field.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        literal = len(node.args) > 1 and isinstance(node.args[0], ast.Constant)
        if node.func.attr.startswith("DEFINE_") and literal:
            yield node.func.attr, node.args[0].value, node.args[1]


CONSTANTS = {
    target.id: node.value
    for path in PACKAGE.rglob("*.py")
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.Assign)
    for target in node.targets
    if isinstance(target, ast.Name)
}


def _value(default):
    if isinstance(default, ast.Name):
        default = CONSTANTS.get(default.id, default)
    try:
        return ast.literal_eval(default)
    except ValueError:
        return ast.unparse(default)


def fed_field(file, owner, name):
    """Returns the config field that a parameter takes its value from, None if there is none."""
    if (file, owner, name) in OTHERS:
        return None
    for section, rooms in ROOMS.items():
        if f"{section}.{name}" in DEFAULTS and any(file.startswith(room) for room in rooms):
            return f"{section}.{name}"
    return RENAMED.get((file, owner, name))


FOUND = [
    (file, owner, name, default, field)
    for file, owner, name, default in parameters()
    if (field := fed_field(file, owner, name)) is not None
]


@pytest.mark.parametrize(
    ("file", "owner", "name", "default", "field"), FOUND, ids=lambda value: str(value)
)
def test_a_parameter_has_the_default_of_its_config_field(file, owner, name, default, field):
    assert default == DEFAULTS[field], f"{file}: {owner}({name}=…) and {field} in config.py"


def test_known_duplicate_parameters_are_found():
    fields = {field for *_, field in FOUND}
    assert {
        "schedule.power",
        "schedule.steps_per_drop",
        "schedule.drop_factor",
        "schedule.warmup_steps",
        "loss.auxiliary_weight",
        "loss.focal_gamma",
        "loss.label_smoothing",
        "loss.l1",
        "training.accumulation_steps",
        "training.ema_decay",
        "training.remat",
        "parallel.data",
        "parallel.spatial",
        "parallel.fsdp",
        "evaluation.batch_size",
        "evaluation.limit",
        "evaluation.size",
        "data.workers",
        "data.class_names",
    } <= fields
