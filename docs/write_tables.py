"""Writes the tables of keywords and config fields into the pages: `python docs/write_tables.py`.

They come from the declarations in deeplab_jax/architecture.py and deeplab_jax/config_fields.py.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator

from deeplab_jax.architecture import Architecture, Shorthands
from deeplab_jax.config_fields import declared_fields
from deeplab_jax.declarations import declaration

HERE = pathlib.Path(__file__).parent
BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"


def row(name: str, field: dataclasses.Field) -> str:
    """Returns the row of a field: name, help with unit and source, default."""
    declared = declaration(field)
    notes = [declared.unit and f"unit: {declared.unit}", declared.source]
    noted = "; ".join(filter(None, notes))
    help_text = f"{declared.help} ({noted})" if noted else declared.help
    unset = "unset" if field.default is None else repr(field.default)
    default = declared.shown_default or f"`{unset}`"
    return f"| `{name}` | {help_text} | {default} |"


def rows(table: str) -> Iterator[str]:
    """Yields the lines of a table: `keywords` of a network or `fields` of a config."""
    yield f"| {'keyword' if table == 'keywords' else 'field'} | description | default |"
    yield "|---|---|---|"
    if table == "fields":
        for name, _, field in declared_fields():
            yield row(name, field)
        return
    for field in (*dataclasses.fields(Architecture), *dataclasses.fields(Shorthands)):
        if field.name != "architecture":
            yield row(field.name, field)


PAGES = {"keywords": "reference/models.md", "fields": "reference/config.md"}


def with_table(text: str, table: str) -> str:
    """Returns a page in which the lines between the marks of the table are those of today."""
    begin, end = BEGIN.format(table), END.format(table)
    before, rest = text.split(begin)
    return "\n".join([before + begin, "", *rows(table), "", end]) + rest.split(end)[1]


def main() -> None:
    """Writes the tables, or with --check only reports pages whose tables are outdated."""
    outdated = []
    for table, page in PAGES.items():
        path = HERE / page
        text = path.read_text()
        if (current := with_table(text, table)) != text:
            outdated.append(page)
            path.write_text(text if "--check" in sys.argv else current)
    if outdated and "--check" in sys.argv:
        sys.exit(f"outdated tables in {', '.join(outdated)}; run python docs/write_tables.py")


if __name__ == "__main__":
    main()
