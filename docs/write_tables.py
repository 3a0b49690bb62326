"""Writes the generated tables of the pages: `python docs/write_tables.py [--check]`.

Tables of keywords, config fields, commands, published models and formats come from their
declarations; tables of measurements come from experiments/results/measured/*.csv. With --check,
nothing is written, and pages with outdated tables are an error.
"""

import collections
import csv
import dataclasses
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from deeplab_jax.architecture_fields import ArchitectureFields, Shorthands
from deeplab_jax.cli.main import COMMANDS, command_help, load_command
from deeplab_jax.config_fields import declared_fields
from deeplab_jax.crf import PARAMETERS
from deeplab_jax.declarations import declaration, default_text, help_text
from deeplab_jax.parallel.chips import XLA_PLATFORMS
from deeplab_jax.parallel.chips import xla_options as platform_options
from deeplab_jax.pretrained import list_pretrained
from deeplab_jax.pretrained.readers import READERS

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parent / "experiments" / "results"
MEASURED = RESULTS / "measured"
BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"
MARK = re.compile(r"^<!-- begin ([\w ]+) -->$", re.MULTILINE)


def table_lines(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Yields the lines of a Markdown table."""
    for row in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(row) + " |"


def row(name: str, field: dataclasses.Field[Any]) -> list[str]:
    """Returns the row of a field: name, help with unit and source, default."""
    default = declaration(field).shown_default or f"`{default_text(field)}`"
    return [f"`{name}`", help_text(field), default]


def keywords() -> Iterator[str]:
    """Yields the table of network keywords."""
    fields = (*dataclasses.fields(ArchitectureFields), *dataclasses.fields(Shorthands))
    rows = [row(field.name, field) for field in fields if field.name != "architecture"]
    yield from table_lines(["keyword", "description", "default"], rows)


def fields() -> Iterator[str]:
    """Yields the table of config fields."""
    rows = [row(name, field) for name, _, field in declared_fields()]
    yield from table_lines(["field", "description", "default"], rows)


def commands() -> Iterator[str]:
    """Yields a section per command with the output of --help."""
    for name in COMMANDS:
        module, flags = load_command(name)
        documentation = command_help(module.__doc__ or "", flags)
        yield from (f"## {name}", "", "```text", documentation, "```", "")


def catalog() -> Iterator[str]:
    """Yields the table of published models."""
    rows = [
        [
            f"`{name}`",
            str(len(entry.class_names) if entry.class_names else ""),
            "; ".join(map(str, entry.metrics)),
            entry.license,
        ]
        for name, entry in sorted(list_pretrained().items())
    ]
    yield from table_lines(["name", "classes", "published metrics", "license"], rows)


def file_formats() -> Iterator[str]:
    """Yields the table of readable files of weights."""
    readers: dict[str, list[str]] = {}
    for suffix, (module, _) in READERS.items():
        readers.setdefault(module, []).append(f"`{suffix}`")
    rows = [[", ".join(found), f"`{module}`"] for module, found in readers.items()]
    yield from table_lines(["file name ends in", "reader"], rows)


def crf_parameters() -> Iterator[str]:
    """Yields the table of published CRF parameters."""
    rows = [
        [
            f"`{name}`",
            *(
                f"{value:g}"
                for value in (
                    values.bilateral_weight,
                    values.bilateral_position_std,
                    values.bilateral_color_std,
                    values.smoothness_weight,
                    values.smoothness_position_std,
                )
            ),
        ]
        for name, values in PARAMETERS.items()
    ]
    yield from table_lines(["name", "w1", "σα", "σβ", "w2", "σγ"], rows)


def xla_options() -> Iterator[str]:
    """Yields the table of compiler options per platform."""
    found: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for platform in XLA_PLATFORMS:
        for name, option in platform_options(platform).items():
            found.setdefault(name, ([], option))[0].append(f"`{platform}`")
    rows = [
        [
            f"`{name}={option['value']}`",
            ", ".join(platforms),
            option["purpose"],
            f"[source]({option['source']})",
        ]
        for name, (platforms, option) in found.items()
    ]
    yield from table_lines(["option", "platforms", "purpose", "source"], rows)


def measured(name: str) -> Iterator[str]:
    """Yields the table of one file of measurements and the line that names their origin."""
    with (MEASURED / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    columns = list(dict.fromkeys((entry["quantity"], entry["unit"]) for entry in entries))
    cells = {(entry["row"], entry["quantity"]): entry["value"] for entry in entries}
    titles = [f"{quantity}, {unit}" if unit else quantity for quantity, unit in columns]
    rows = [
        [label, *(cells.get((label, quantity), "") for quantity, _ in columns)]
        for label in dict.fromkeys(entry["row"] for entry in entries)
    ]
    yield from table_lines(["", *titles], rows)
    yield ""
    hardware, commands = (
        list(dict.fromkeys(entry[key] for entry in entries)) for key in ("hardware", "command")
    )
    pairs = dict.fromkeys(f"{entry['commit']} ({entry['date']})" for entry in entries)
    command = "; ".join(f"`{part}`" for one in commands for part in one.split("; "))
    commit = "Commits" if len(pairs) > 1 else "Commit"
    yield f"*{'; '.join(hardware)}. {command}. {commit} {', '.join(pairs)}.*"


def results(name: str) -> Iterator[str]:
    """Yields the table of an experiment: mean over seeds, changes per seed, published value."""
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    seeds = [[float(value) for value in entry["values"].split()] for entry in entries]
    first = next(values for values in seeds if values)
    rows = []
    for entry, values in zip(entries, seeds, strict=True):
        mean = "not run"
        if values:
            mean = f"{float(entry['mean']):.2f}"
        # A single seed has no standard deviation.
        if entry["standard_deviation"]:
            mean += f" ± {float(entry['standard_deviation']):.2f}"
        paired = [] if values is first else list(zip(values, first, strict=False))
        changes = ", ".join(f"{value - base:+.2f}".replace("-", "−") for value, base in paired)
        rows.append([entry["row"], mean, changes, entry["published"], entry["note"]])
    header = ["", "mean IoU, %", "change from the first row, per seed", "published, %", "note"]
    # The last columns are empty in most experiments.
    while not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    yield from table_lines(header, rows)


def claims() -> Iterator[str]:
    """Yields the table of claims: mean difference with its 95 % interval, effect and verdict."""
    with (RESULTS / "claims.csv").open(newline="", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    counts = collections.Counter(entry["verdict"] for entry in entries)
    yield f"{len(entries)} claims: {', '.join(f'{n} {verdict}' for verdict, n in counts.items())}."
    yield ""
    rows = []
    for entry in entries:
        mean, low, high = (f"{float(entry[key]):+.1f}" for key in ("difference", "low", "high"))
        difference = f"{mean} ({low} to {high})".replace("-", "−") if int(entry["seeds"]) else "–"
        compared = f"{entry['better']} − {entry['worse']}"
        name = f"`{entry['table'].removeprefix('diagnostic/')}`"
        verdict = f"**{entry['verdict']}**"
        cells = (entry["claim"], entry["source"], name, compared, difference)
        rows.append([*cells, entry["effect"], entry["seeds"], entry["minutes"], verdict])
    header = ["claim", "source", "table", "rows", "difference, % (95 % interval)"]
    yield from table_lines([*header, "effect, %", "seeds", "minutes", "verdict"], rows)
    yield ""
    run = [entry for entry in entries if int(entry["seeds"])]
    pairs = dict.fromkeys(f"{entry['commit']} ({entry['date']})" for entry in run)
    yield f"*Commit {', '.join(pairs)}.*"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "keywords": keywords,
    "fields": fields,
    "commands": commands,
    "catalog": catalog,
    "claims": claims,
    "file_formats": file_formats,
    "crf_parameters": crf_parameters,
    "xla_options": xla_options,
}


def lines(table: str) -> Iterator[str]:
    """Yields the lines of a table: a name of TABLES, `measured NAME` or `results NAME`."""
    kind, _, name = table.partition(" ")
    files = {"measured": measured, "results": results}
    yield from files[kind](name) if name else TABLES[table]()


def pages() -> list[pathlib.Path]:
    """Returns the pages that contain generated tables."""
    outside = [HERE.parent / "README.md", RESULTS.parent / "RESULTS.md"]
    found = [*outside, *sorted(HERE.rglob("*.md"))]
    return [page for page in found if MARK.search(page.read_text("utf-8"))]


def with_tables(text: str) -> str:
    """Returns a page in which the lines between each pair of marks are current."""
    for table in MARK.findall(text):
        begin, end = BEGIN.format(table), END.format(table)
        before, rest = text.split(begin)
        text = "\n".join([before + begin, "", *lines(table), "", end]) + rest.split(end, 1)[1]
    return text


def main() -> None:
    """Writes the tables, or with --check only reports pages whose tables are outdated."""
    outdated = []
    for page in pages():
        text = page.read_text("utf-8")
        current = with_tables(text)
        if current != text:
            outdated.append(str(page.relative_to(HERE.parent)))
            if "--check" not in sys.argv:
                page.write_text(current, "utf-8")
    if outdated and "--check" in sys.argv:
        sys.exit(f"outdated tables in {', '.join(outdated)}; run python docs/write_tables.py")


if __name__ == "__main__":
    main()
