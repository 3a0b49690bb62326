"""Checks the English of the repository: `python docs/check_prose.py [PATH …]`.

Reads docstrings, comments and other strings of Python files, and the prose of Markdown pages.
Prints one line per fault and exits with status 1 if there is one. The rules:

* No sentence starts with a word of `STARTS`, unless it is a question or starts with a phrase of
  `ALLOWED_STARTS`.
* No sentence contains a phrase of `PHRASES`, unless it contains one of `ALLOWED_SENTENCES`.
* The help of a flag or a config field has at least four words. The help of a number states a
  unit, a range or a default, or the declaration does.
"""

import ast
import io
import pathlib
import re
import sys
import textwrap
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ("deeplab_jax", "configs", "experiments", "docs", "README.md", "CONTRIBUTING.md")
# Directories of installed packages and of files that other programs write.
SKIPPED = (".venv", "_build", "__pycache__", "containers")

STARTS = ("Of", "That", "By", "So", "Whose", "What", "Whether")
ALLOWED_STARTS = ("By default",)
PHRASES = re.compile(
    r"\b(hears?|heard|hearing|tells?|told|telling|anew|so\smany|worked\sthrough)\b", re.IGNORECASE
)
# Sentences that need a banned word, by an exact part of them, each with its reason.
ALLOWED_SENTENCES: tuple[str, ...] = ()

START = re.compile(r"^[\s\"“'‘(\[*_>|]*(" + "|".join(STARTS) + r")\b")
SENTENCE_END = re.compile(r"(?<=[.!?:;])[\"”'’)\]*_]*\s+(?=[\"“'‘(\[*_]*[A-Z])")
LIST_ITEM = re.compile(r"^\s*([*+-]|\d+[.)])\s+")
CODE = re.compile(r"``[^`]*``|`[^`]*`")
WORD = re.compile(r"[\w½γσα]+(?:[-’'][\w]+)*")
MIN_HELP_WORDS = 4
# Words of a help text that state a unit, a range or a default.
STATED = re.compile(
    r"\d|½|\b(default|unset|number of|maximum|minimum|at least|at most|up to|above|below|"
    r"fraction|percentage|pixels|seconds|steps|images|devices|processes|degrees|megabytes|"
    r"megapixels|classes|channels|rows|port|index)\b",
    re.IGNORECASE,
)
# Arguments of a declaration that state a range or a unit and are printed beside the help.
STATING_ARGUMENTS = {"unit", "rule", "legal", "shown_default", "least", "lower_bound"}


class Fault(NamedTuple):
    """A place where a rule is broken.

    Attributes:
      line: line number, from 1.
      problem: broken rule, and the sentence.
    """

    line: int
    problem: str


def blocks(text: str, line: int = 1) -> Iterator[tuple[int, str]]:
    """Yields paragraphs and list items with the number of their first line.

    Args:
      text: docstring, comment, message or prose of a page.
      line: number of the first line of the text.
    """
    first = line
    lines: list[str] = []
    for number, content in enumerate(text.splitlines(), start=line):
        starts_block = not content.strip() or LIST_ITEM.match(content)
        if starts_block and lines:
            yield first, " ".join(lines)
            lines = []
        if content.strip():
            first = first if lines else number
            lines.append(LIST_ITEM.sub("", content).strip())
    if lines:
        yield first, " ".join(lines)


def sentence_faults(text: str, line: int = 1) -> Iterator[Fault]:
    """Yields the faults of the sentences of a text.

    Args:
      text: docstring, comment, message or prose of a page; code between backquotes is skipped.
      line: number of its first line.
    """
    for number, block in blocks(text, line):
        for sentence in SENTENCE_END.split(CODE.sub("`…`", block)):
            if any(part in sentence for part in ALLOWED_SENTENCES):
                continue
            start, phrase = START.match(sentence), PHRASES.search(sentence)
            is_question = sentence.rstrip("\"”'’)*_ ").endswith("?")
            is_allowed = sentence.lstrip().startswith(ALLOWED_STARTS)
            if start and not is_question and not is_allowed:
                yield Fault(number, f"starts with {start[1]}: {sentence}")
            if phrase:
                yield Fault(number, f"contains {phrase[1]!r}: {sentence}")


def _joined(node: ast.expr) -> str | None:
    """Returns the text of a string or f-string, with … for values; None for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_joined(part) or "…" for part in node.values)
    return None


def _strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields line and text of every string with more than one word; f-strings as a whole."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.expr):
            text = _joined(node)
            if text is not None and " " in text.strip():
                yield node.lineno, text
        if isinstance(node, ast.JoinedStr):
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    yield from _strings(part)
        else:
            yield from _strings(node)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Yields line and text of comments; comments on adjacent lines are one text."""
    first, place = 0, (0, 0)
    lines: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        row, column = token.start
        if lines and (row, column) != (place[0] + 1, place[1]):
            yield first, "\n".join(lines)
            lines = []
        first, place = (first if lines else row), (row, column)
        lines.append(token.string.lstrip("#: "))
    if lines:
        yield first, "\n".join(lines)


class Help(NamedTuple):
    """Help text of a flag or a config field.

    Attributes:
      line: line number of the declaration.
      text: the help.
      is_number: the value is a number or a tuple of numbers.
      states: the declaration itself states a unit or a range.
    """

    line: int
    text: str
    is_number: bool
    states: bool


# Position of the help text among the arguments of the functions that declare a flag or a field.
HELP_POSITIONS = {
    "define": 2,
    "define_repeatable": 1,
    "keyword": 1,
    "Flag": 4,
    "DEFINE_enum": 3,
    "DEFINE_flag": 99,
}


def helps(tree: ast.AST) -> Iterator[Help]:
    """Yields the help texts of the flags and config fields that a module declares."""
    hints = {
        id(node.value): ast.unparse(node.annotation)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        position = HELP_POSITIONS.get(name, 2 if name.startswith("DEFINE_") else None)
        if position is None or len(node.args) <= position:
            continue
        text = _joined(node.args[position])
        if text is None:
            continue
        given = {argument.arg: argument.value for argument in node.keywords}
        kind = hints.get(id(node), "") + name
        if "kind" in given:
            kind += ast.unparse(given["kind"])
        default = node.args[0 if name == "keyword" else position - 1]
        is_number = bool(re.search(r"\bint\b|\bfloat\b|_integer|_float", kind.replace("[", " ")))
        yield Help(
            node.lineno,
            text,
            is_number or _is_number(default),
            bool(given.keys() & STATING_ARGUMENTS),
        )


def _is_number(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and not isinstance(node.value, bool)
    )


def help_faults(tree: ast.AST) -> Iterator[Fault]:
    """Yields the faults of the help texts of a module."""
    for found in helps(tree):
        if len(WORD.findall(found.text)) < MIN_HELP_WORDS:
            yield Fault(found.line, f"help has fewer than {MIN_HELP_WORDS} words: {found.text}")
        if found.is_number and not found.states and not STATED.search(found.text):
            yield Fault(found.line, f"help of a number has no unit, range or default: {found.text}")


def python_faults(source: str) -> Iterator[Fault]:
    """Yields the faults of a Python file."""
    tree = ast.parse(source)
    for line, text in (*_strings(tree), *_comments(source)):
        yield from sentence_faults(text, line)
    yield from help_faults(tree)


def page_faults(source: str) -> Iterator[Fault]:
    """Yields the faults of a Markdown page; code blocks are skipped, table cells are texts."""
    prose, fence = [], ""
    for line in source.splitlines():
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
            line = ""
        prose.append("" if fence else line.lstrip("#> "))
    for number, line in enumerate(prose, start=1):
        if line.lstrip().startswith("|"):
            prose[number - 1] = ""
            for cell in line.strip().strip("|").split("|"):
                yield from sentence_faults(cell, number)
    yield from sentence_faults("\n".join(prose))


def files(paths: Iterable[pathlib.Path]) -> Iterator[pathlib.Path]:
    """Yields the Python files and Markdown pages among paths and below directories."""
    for path in paths:
        found = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
        for file in found:
            relative = file.relative_to(path).parts if path.is_dir() else ()
            if file.suffix in (".py", ".md") and not set(SKIPPED) & set(relative):
                yield file


def file_faults(path: pathlib.Path) -> list[Fault]:
    """Returns the faults of a file in the order of its lines."""
    find = python_faults if path.suffix == ".py" else page_faults
    return sorted(find(path.read_text()))


def main(arguments: Sequence[str]) -> int:
    """Prints the faults of the paths, or of the whole repository; returns the exit status."""
    paths = [pathlib.Path(argument).resolve() for argument in arguments]
    count = 0
    for path in files(paths or [ROOT / source for source in SOURCES]):
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        for fault in file_faults(path):
            count += 1
            print(f"{shown}:{fault.line}: {textwrap.shorten(fault.problem, 160, placeholder=' …')}")
    print(f"{count} faults", file=sys.stderr)
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
