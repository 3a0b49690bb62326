"""What README and the pages name can be had: commands, flags, config fields, networks, datasets.

Every `deeplab-jax` command of a page is parsed by the real command's flags, every config override
by the real config, so that a page cannot name what does not exist. What the FAQ once denied is
listed by name.
"""

import configparser
import itertools
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util

from deeplab_jax import config as configs
from deeplab_jax import list_pretrained, ops
from deeplab_jax.backbones import BACKBONES
from deeplab_jax.cli.main import COMMANDS, load_command, spell_out_overrides
from deeplab_jax.data.builders.registry import BUILDERS
from deeplab_jax.models import DeepLab, create_model
from deeplab_jax.models.architectures import resolve
from deeplab_jax.planning.hardware import parse_topology
from deeplab_jax.training.workdir import network_of

ROOT = pathlib.Path(__file__).parents[2]
FAQ, README = ROOT / "docs" / "faq.md", ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
# Placeholders of syntax, as in `--config.FIELD=VALUE`, are not examples.
PLACEHOLDER = re.compile(r"[A-Z]{3}|…|\.\.\.|\[")
# Pages with flags of other programs: compilers, benchmarks, schedulers.
OTHER_PROGRAMS = {"benchmarks.md", "experiments.md", "pods.md", "volumes.md"}
SECTIONS = [name for name, value in configs.default().items() if hasattr(value, "items")]


def inline(page: pathlib.Path) -> list[str]:
    return INLINE.findall(FENCED.sub("", page.read_text("utf-8")))


def commands(page: pathlib.Path) -> list[list[str]]:
    """Returns the words of every `deeplab-jax` command in a page's fences and inline code."""
    fences = "".join(FENCED.findall(page.read_text("utf-8"))).replace("\\\n", " ")
    lines = [line.split(" # ")[0].strip() for line in fences.splitlines()] + inline(page)
    found = (line.removeprefix("$ ") for line in lines)
    return [
        shlex.split(line)[1:]
        for line in found
        if line.startswith("deeplab-jax ") and not PLACEHOLDER.search(line)
    ]


def fields(page: pathlib.Path) -> set[str]:
    """Returns the config fields that a page names in inline code, sections included."""
    named = (re.fullmatch(r"(\w+(?:\.\w+)+)(=.*)?", code) for code in inline(page))
    dotted = {match[1] for match in named if match and match[1].split(".")[0] in SECTIONS}
    return {name for name in dotted if not name.endswith((".py", ".json", ".yaml", ".safetensors"))}


def exists(reference: str) -> bool:
    """Returns whether a command, `COMMAND --flag` or config field exists."""
    if reference in dict(configs.flatten(configs.default())):
        return True
    command, _, flag = reference.partition(" --")
    return command in COMMANDS and (not flag or flag in load_command(command)[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_ones_with_these_flags(page):
    for name, *words in commands(page):
        _, flags = load_command(name)
        flags([name, *spell_out_overrides(words)])
        overrides = flags["override"].value if "override" in flags else []
        for text in overrides:
            field, _, value = text.partition("=")
            configs.override(configs.default(), field, value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_of_commands_support_the_flags(page):
    for name, *words in commands(page):
        _, flags = load_command(name)
        flags([name, *spell_out_overrides(words)])
        if name not in ("train", "plan") or not flags.config:
            continue
        config = flags.read_config()
        configs.check(config)
        network_of(config)
        if name == "plan":
            chips = parse_topology(flags.topology, flags.num_slices).num_chips
            shards = chips // config.parallel.spatial
            assert config.training.batch_size % (shards * config.training.accumulation_steps) == 0


def test_flags_for_real_time_fit_the_recipes_on_mobilenet():
    title = "## How do I run a network in real time?"
    section = FAQ.read_text("utf-8").split(title)[1].split("\n## ")[0]
    given = re.findall(r"--config\.([\w.]+)=([\w.]+)", section)
    assert len(given) >= 4
    for recipe, (field, value) in itertools.product(("camvid", "folder", "shapes"), given):
        for arguments in ("", "cpu"):
            config = configs.load(f"{recipe}:{arguments}")
            configs.override(config, field, value)
            configs.check(config)
            assert network_of(config).backbone == "mobilenet_v2"


def backbone_shapes(model: DeepLab) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Returns the shapes of the variables of a backbone by path."""
    image = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.uint8)
    with ops.dispatching(export=True):
        shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    flat = traverse_util.flatten_dict(shapes)
    return {path: leaf.shape for path, leaf in flat.items() if path[1] == "backbone"}


def test_published_networks_that_pages_start_from_have_the_backbone_of_the_recipe():
    text = "".join(page.read_text("utf-8") for page in (*PAGES, *NOTEBOOKS))
    references = set(re.findall(r"\bfolder:[\w,=]*\binit=\w+", text))
    assert len(references) >= 2
    for reference in references:
        config = configs.load(reference)
        assert config.training.init_scope == "backbone"
        entry = list_pretrained()[config.training.init_from]
        published = create_model(entry.architecture, **entry.overrides)
        ours = backbone_shapes(DeepLab(network_of(config)))
        assert ours.items() <= backbone_shapes(published).items()
    # With the default init_scope, all layers of the recipe would have to be in the published one.
    starts = set(re.findall(r"init_from\W+(\w+)", text))
    assert not starts & set(list_pretrained())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_config_fields_exist_and_take_the_value(page):
    known = dict(configs.flatten(configs.default()))
    sections = {field.rpartition(".")[0] for field in known}
    assert not fields(page) - set(known) - sections
    shown = re.findall(r"--config\.([\w.]+)=([^\s`)\"]+)", page.read_text("utf-8"))
    for field, value in shown:
        if not PLACEHOLDER.search(value):
            configs.override(configs.default(), field, value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_in_inline_code_exist(page):
    if page.name in OTHER_PROGRAMS:
        pytest.skip("the page describes other programs, too")
    known = {flag for command in COMMANDS for flag in load_command(command)[1]}
    named = {
        flag
        for code in inline(page)
        if code.startswith(("--", "deeplab-jax"))
        for flag in re.findall(r"(?<![\w-])--([a-z_]+)\b(?!\.)", code)
    }
    missing = {flag for flag in named - known if flag.removeprefix("no") not in known}
    assert missing <= {"help", "flag"}


def test_features_documented_as_absent_are_absent():
    assert not [name for name in BACKBONES if "mobilenet_v1" in name or "edgetpu" in name]
    assert not [name for name in list_pretrained() if "edgetpu" in name]


def test_commands_and_fields_are_found():
    """The tests above look at something."""
    assert min(len(commands(page)) for page in (FAQ, README)) >= 4
    assert len(fields(FAQ)) >= 10


@pytest.mark.parametrize(
    ("named", "reference"),
    [
        ("training.init_from", "training.init_from"),
        ("deeplab-jax convert", "convert"),
        ("loss.l1", "loss.l1"),
        ("training.patience", "training.patience"),
        ("--folds", "train --folds"),
        ("--scales", "evaluate --scales"),
        ("--scales", "predict --scales"),
        ("--flip", "evaluate --flip"),
        ("--crf", "evaluate --crf"),
        ("--tile", "predict --tile"),
        ("--output_stride", "evaluate --output_stride"),
        ("deeplab-jax export", "export"),
        ("deeplab-jax quantize", "quantize"),
        ("deeplab-jax prune", "prune"),
        ("deeplab-jax distill", "distill"),
    ],
)
def test_the_faq_names_what_exists(named, reference):
    assert exists(reference)
    assert named in FAQ.read_text("utf-8")


def test_published_names_in_the_faq_and_readme_are_in_the_catalog():
    text = FAQ.read_text("utf-8") + README.read_text("utf-8")
    named = set(re.findall(r"\b(?:deeplabv3\w*|\w+_imagenet)\b", text)) - {"deeplabv3plus"}
    assert "deeplabv3_mobilenetv2_voc_uint8" in named
    assert "mobilenetv2_imagenet" in named
    assert named <= set(list_pretrained())


def test_extras_that_the_pages_name_can_be_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = "".join(page.read_text("utf-8") for page in PAGES)
    named = set(re.findall(r"(?:deeplab_jax|\.)\[(\w+)\]'", text))
    assert {"app", "cuda", "onnx", "torch"} <= named <= set(setup["options.extras_require"])


def test_fields_that_may_differ_on_resuming_are_free():
    text = FAQ.read_text("utf-8").split("## Why is my resumed run refused?")[1].split("\n## ")[0]
    named = set(INLINE.findall(text)) & set(dict(configs.flatten(configs.default())))
    assert named - {"training.init_from"} <= set(configs.FREE_FIELDS)
    assert len(named) > 3


def test_the_faq_names_the_recipes_with_averaged_parameters():
    lines = FAQ.read_text("utf-8").splitlines()
    (row,) = (line for line in lines if line.startswith("| averaged parameters |"))
    recipes = ("camvid", "folder", "shapes", "voc", "voc:cpu", "deeplab_v3plus", "mobilenet")
    averaging = {name for name in recipes if configs.load(name).training.ema_decay}
    assert {code for code in INLINE.findall(row) if not code.startswith("--")} == averaging


def test_the_readme_names_every_data_set_that_can_be_prepared():
    row = next(line for line in README.read_text("utf-8").splitlines() if "| datasets |" in line)
    assert set(INLINE.findall(row)) == set(BUILDERS)


def test_every_architecture_is_on_every_backbone():
    backbones = [
        "vgg_16",
        *(f"resnet_{depth}" for depth in (18, 50, 101)),
        *(f"xception_{depth}" for depth in (41, 65, 71)),
        *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    ]
    architectures = [f"deeplab_{version}" for version in ("v1", "v2", "v3", "v3plus")]
    for architecture, backbone in itertools.product(architectures, backbones):
        assert resolve(architecture, backbone=backbone).backbone == backbone


def test_dropout_rates_match_the_faq():
    rates = {name: resolve(f"deeplab_{name}").dropout_rate for name in ("v1", "v2", "v3", "v3plus")}
    assert resolve("deeplab_v2", backbone="vgg_16").dropout_rate == 0.5
    assert rates == {"v1": 0.5, "v2": 0.0, "v3": 0.1, "v3plus": 0.1}
