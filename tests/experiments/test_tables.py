"""Every published number is a row of a table or left out for a reason; every row can be run."""

import collections
import csv
import dataclasses
import functools
import pathlib
import re
import types

import jax
import jax.numpy as jnp
import pytest

from deeplab_jax import config as configs
from deeplab_jax.models import DeepLab, create_model
from experiments import multiply_adds
from experiments.cases import Case, load_recipe, make_cases
from experiments.catalog import find_table, list_tables
from experiments.costs import Counter, evaluated_network, network_of, parameters
from experiments.costs import multiply_adds as count_multiply_adds
from experiments.presets import PRESETS
from experiments.table import Table, Training

ROOT = pathlib.Path(__file__).parents[2]
LEFT_OUT = ROOT / "experiments/not_reproduced.csv"
PUBLISHED_VALUES = 269
REASONS = (
    "test server",
    "private data",
    "ImageNet classification",
    "needs MobileNetV1",
    "does not split over 32 devices",
)
NAMES = list_tables()


@functools.cache
def cases(name: str, preset: str = "paper") -> tuple[Case, ...]:
    return make_cases(find_table(name), PRESETS[preset])


def left_out() -> list[dict[str, str]]:
    with LEFT_OUT.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def produced() -> collections.Counter:
    found = collections.Counter()
    for table in map(find_table, NAMES):
        place = table.paper, table.number, table.dataset, table.split
        for row in table.rows:
            for metric, value in table.published(row).items():
                found[(*place, metric, float(value))] += 1
    return found


def not_produced() -> collections.Counter:
    columns = ("paper", "table", "dataset", "split", "metric")
    return collections.Counter(
        (*(row[column] for column in columns), float(row["published"])) for row in left_out()
    )


def test_every_published_value_is_there_or_left_out(shared):
    with (shared / "reference/paper_rows.csv").open(newline="", encoding="utf-8") as file:
        columns = ("paper", "table", "dataset", "split", "metric")
        wanted = collections.Counter(
            (*(row[column] for column in columns), float(row["value"]))
            for row in csv.DictReader(file)
        )
    assert produced() + not_produced() == wanted


def test_the_number_of_rows_is_known_without_the_list():
    assert produced().total() + not_produced().total() == PUBLISHED_VALUES


def test_omitted_rows_have_a_known_reason():
    for row in left_out():
        assert any(reason in row["reason"] for reason in REASONS), row


@pytest.mark.parametrize("name", NAMES)
def test_rows_resolve_as_published(name):
    for case in cases(name):
        config = case.training.config
        configs.check(config)
        assert config.training.batch_size % config.training.accumulation_steps == 0
        assert bool(case.training.after) == (config.training.init_from == "the-training-before")
        # Raises where the network cannot be evaluated so.
        evaluated, _, _ = evaluated_network(case)
        trained = network_of(case.training)
        for before, after in zip(trained.atrous_rates, evaluated.atrous_rates, strict=True):
            assert before * trained.output_stride == after * evaluated.output_stride


@pytest.mark.parametrize("name", NAMES)
def test_rows_resolve_at_the_size_of_a_preset(name):
    for case in cases(name, "camvid"):
        if case.training is None:
            assert case.why_not
            continue
        config = case.training.config
        configs.check(config)
        assert config.data.name == "camvid"
        assert config.training.init_from == ""
        evaluated_network(case)


@pytest.mark.slow
def test_no_two_rows_of_a_published_table_are_one_run():
    for name in NAMES:
        runs = [(case.training.key, case.strategy, case.row.trimap) for case in cases(name)]
        assert len(runs) == len(set(runs)), name


def test_evaluations_of_one_network_share_its_training():
    keys = {case.training.key for case in cases("v3/table4")}
    assert len(keys) == 1
    # And so do tables: the best cascade is a row of table 3.
    assert keys & {case.training.key for case in cases("v3/table3")}
    assert len({case.training.key for case in cases("v3plus/table3")}) == 4
    # And whatever a network is called: without its decoder v3+ is v3.
    without_decoder, third_version = cases("own/decoder")[0], cases("own/heads")[2]
    assert without_decoder.training.key == third_version.training.key


GOLDEN = ROOT / "tests/configs/golden"


@functools.cache
def golden(recipe: str) -> dict[str, str] | None:
    """Returns the golden fields of a recipe by name, as text; None if it is not among them."""
    name = recipe.partition(":")[0]
    sections = re.split(r"^# ", (GOLDEN / f"{name}.txt").read_text("utf-8"), flags=re.MULTILINE)
    bodies = {section.partition("\n")[0]: section.partition("\n")[2] for section in sections}
    if recipe not in bodies:
        return None
    fields: dict[str, str] = {}
    for text in dict.fromkeys((name, recipe)):
        for line in bodies[text].splitlines():
            field, equals, value = line.partition("  # open")[0].partition(" = ")
            if equals:
                fields[field] = value
            fields.pop(line.removeprefix("- "), None)
    return fields


def shown_fields(config, network) -> dict[str, str]:
    fields = {
        name: value
        for name, value in configs.flatten(config)
        if not name.startswith("model.") or name == "model.architecture"
    }
    fields |= {f"model.{name}": value for name, value in network.describe().items()}
    fields["model.architecture"] = config.model.architecture
    return {name: repr(value) for name, value in fields.items()}


STARTS = {"training.init_from", "training.init_scope"}
# What follows from a change: of the rates from the output stride, of the pooled area from the crop.
CONSEQUENCES = {
    "model.output_stride": {"model.atrous_rates"},
    "model.image_pooling": {"model.pooling_crop"},
    "augmentation.crop_size": {"model.pooling_crop"},
    "model.architecture": {"model.decoder", "model.separable"},
    "model.cascade_blocks": set(),
    "data.name": {"model.num_classes"},
}


def published_rows() -> list[tuple[str, Table, Case]]:
    tables = (
        (name, find_table(name)) for name in NAMES if not name.startswith(("own/", "diagnostic/"))
    )
    return [(name, table, case) for name, table in tables for case in cases(name)]


def test_the_paper_preset_is_the_golden_recipe():
    """But for what a row changes, and where a run starts from."""
    checked, wrong = set(), {}
    for name, table, case in published_rows():
        row = case.row
        recipe = table.training(row).recipe
        starts = ("init=runs/coco", "init=runs/deeplab_v1") if row.after else ()
        joint = "," if ":" in recipe else ":"
        found = [golden(f"{recipe}{joint}{start}") for start in starts] + [golden(recipe)]
        fields = next((one for one in found if one), None)
        if fields is None:
            continue
        checked.add(recipe)
        mine = shown_fields(case.training.config, network_of(case.training))
        changed = {field for field in mine if mine[field] != fields.get(field)}
        allowed = set(row.changes) | (STARTS if row.after else set())
        for field in row.changes:
            allowed |= CONSEQUENCES.get(field, set())
        if changed - allowed:
            wrong[f"{name}, {row.label}"] = changed - allowed
    assert not wrong
    assert {"deeplab_v1", "deeplab_v3", "deeplab_v3plus", "deeplab_v3:from_coco"} <= checked
    assert len(checked) >= 15


@pytest.mark.parametrize(
    ("name", "class_names", "count"),
    [
        ("camvid", None, 11),
        ("ade20k", None, 151),
        ("coco_voc", None, 21),
        ("folder/mine", None, 21),
        ("folder/mine", ("sky", "tree"), 2),
    ],
)
def test_costs_are_those_of_a_network_with_the_classes_of_the_dataset(name, class_names, count):
    config = configs.default()
    config.data.name, config.data.class_names = name, class_names
    assert network_of(types.SimpleNamespace(config=config)).num_classes == count


def plain(case: Case):
    """Returns the network but for what no parameter's shape hangs on."""
    network = network_of(case.training)
    same = {"num_classes": 21, "pooling_crop": (65, 65), "multi_scale": (), "preprocessing": "none"}
    same |= {"frozen_batch_norm": False, "output_stride": min(network.output_stride, 32)}
    if network.multi_grid is not None:
        same["multi_grid"] = tuple(1 for _ in network.multi_grid)
    if network.image_pooling != "none":
        same["image_pooling"] = "global"
    # Branches are called by their rate.
    same["atrous_rates"] = tuple(range(1, len(network.atrous_rates) + 1))
    return dataclasses.replace(network, **same)


def is_built(network) -> None:
    image = jax.ShapeDtypeStruct((1, 65, 65, network.in_channels), jnp.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(DeepLab(network).init, key, image)
    assert jax.tree.leaves(variables["params"])


def distinct(of) -> dict:
    found = {}
    for name in NAMES:
        for case in cases(name):
            found.setdefault(of(case), f"{name}: {case.row.label}")
    return found


@pytest.mark.slow
def test_every_kind_of_network_is_built():
    """Networks whose parameters are alike are built once."""
    networks = distinct(plain)
    assert len(networks) > 25
    for network in networks:
        is_built(network)


@pytest.mark.slow
def test_every_network_is_built_at_the_output_stride_of_evaluation():
    for network in distinct(lambda case: evaluated_network(case)[0]):
        is_built(network)


PAPERS = {"v3+": "arXiv 1802.02611", "MNv2": "arXiv 1801.04381"}


def printed_multiply_adds() -> list[tuple[Table, Case, float, dict[str, str]]]:
    """Returns the rows with multiply-adds, each with its line of multiply_adds.csv."""
    lines = multiply_adds.read_published()
    found = []
    for name in NAMES:
        table = find_table(name)
        for case in cases(name):
            value = case.row.costs.get("GMAdds")
            if value is None:
                continue
            same = [
                line
                for line in lines
                if line["source"] == PAPERS[table.paper]
                and line["table"] == table.number
                and float(line["published_billions"]) == value
            ]
            assert len(same) == 1, f"{name}, {case.row.label}: {value}"
            found.append((table, case, value, same[0]))
    return found


def test_published_multiply_adds_are_counted():
    """tests/models/test_published_multiply_adds.py counts the networks of multiply_adds.csv."""
    rows = printed_multiply_adds()
    assert len(rows) == 14 + 20 + 6
    for _, case, _, line in rows:
        network, sizes, flip = evaluated_network(case)
        keywords = multiply_adds.parse_keywords(line["keywords"], ";")
        counted = create_model(line["architecture"], **keywords).architecture
        # Neither changes what is multiplied.
        same = {
            "image_pooling": counted.image_pooling,
            "pooling_crop": counted.pooling_crop,
            "preprocessing": counted.preprocessing,
        }
        if line["published_billions"] == "101.28":
            # Printed of networks trained at two output strides.
            same["multi_grid"] = counted.multi_grid
        assert dataclasses.replace(network, **same) == counted
        assert sizes == multiply_adds._sizes(line)
        assert flip == (line["flip"] == "yes")


@pytest.mark.slow
def test_multiply_adds_are_the_printed_ones():
    counter = Counter()
    for _, case, _, line in printed_multiply_adds():
        ours = count_multiply_adds(case, counter)
        assert multiply_adds._agree(ours, line["published_billions"], line["tolerance"])


@pytest.mark.slow
def test_parameters_are_the_printed_ones():
    counter = Counter()
    rows = [case for case in cases("mobilenet_v2/table7") if "Mparams" in case.row.costs]
    for case in rows:
        assert f"{parameters(case, counter):.2f}" == f"{case.row.costs['Mparams']:.2f}"
    assert len(rows) == 6


def test_the_notes_on_heads_state_their_output_stride():
    networks = [network_of(case.training) for case in cases("own/heads")]
    assert {network.output_stride for network in networks} == {16}
    assert [network.atrous_rates for network in networks[:2]] == [(6,), (3, 6, 9, 12)]
    assert "All rows run at output stride 16" in find_table("own/heads").notes


def test_the_guide_names_the_backbones_of_small_presets():
    names = {
        "mobilenet_v2": "MobileNetV2",
        "resnet_18_beta": "ResNet-18",
        "resnet_50_beta": "ResNet-50",
    }
    guide = (ROOT / "docs/guides/experiments.md").read_text("utf-8")
    for preset in ("camvid", "camvid_gpu", "smoke"):
        (row,) = re.findall(rf"^\| `{preset}` .*", guide, re.MULTILINE)
        assert names[PRESETS[preset].small.backbone] in row
        assert names[PRESETS[preset].resnet.backbone] in row


def test_the_recipe_before_is_found():
    row = find_table("v3/table6").rows[-1]
    assert load_recipe(row.after).data.name == "coco_voc"
    after = cases("v3/table6")[-1].training.after
    assert after.config.training.num_steps == 500_000
    assert load_recipe(Training("deeplab_v3")).training.num_steps == 30_000


def test_a_stride_with_fractional_rates_is_skipped_with_the_reason():
    cases = make_cases(find_table("own/output_strides"), PRESETS["camvid"])
    found = {case.row.label: case.why_not for case in cases if case.why_not}
    assert list(found) == ["trained at 16, evaluated at 32"]
    (reason,) = found.values()
    assert "would be 1.5, 3, 4.5; legal output strides: 4, 8, 16" in reason


@pytest.mark.parametrize("preset", ["camvid", "camvid_gpu", "voc_subset", "smoke"])
@pytest.mark.parametrize("name", ["own/aspp_rates", "own/output_strides", "v3/table5"])
def test_small_networks_keep_the_head_whose_rates_are_varied(name, preset):
    cases = [case for case in make_cases(find_table(name), PRESETS[preset]) if case.training]
    assert {network_of(case.training).head for case in cases} == {"aspp"}
