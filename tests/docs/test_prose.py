"""The check of the repository's English finds what it bans and passes good sentences."""

import importlib.util
import pathlib

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
SPEC = importlib.util.spec_from_file_location("check_prose", DOCS / "check_prose.py")
PROSE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(PROSE)


def problems(faults):
    return [fault.problem.partition(":")[0] for fault in faults]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Of the file.", "starts with Of"),
        ("That a request may wait for its result.", "starts with That"),
        ("By which channels go.", "starts with By"),
        ("So the images do not depend on it.", "starts with So"),
        ("Whose images decide the ranges.", "starts with Whose"),
        ("What the folds came to.", "starts with What"),
        ("Whether training stops.", "starts with Whether"),
        ("Reads a file. What it holds is checked.", "starts with What"),
        ("Reads a file.\n\nOf each image one is kept.", "starts with Of"),
        ("Parts:\n* one\n* So two", "starts with So"),
        ("**What it brought.**", "starts with What"),
        ("A reporter that hears of each step.", "contains 'hears'"),
        ("The header tells the size.", "contains 'tells'"),
        ("Nobody is told.", "contains 'told'"),
        ("Writes it anew.", "contains 'anew'"),
        ("The first so\nmany images.", "contains 'so many'"),
        ("A batch is worked through in parts.", "contains 'worked through'"),
    ],
)
def test_a_banned_sentence_is_found(text, problem):
    assert problems(PROSE.sentence_faults(text)) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        "Returns whether early-stopping patience is exhausted.",
        "By default the file takes RGB images.",
        "Number of the images, by class, that are read; so the mean is over what is left.",
        "What does it cost? A second.",
        "Prints `What` and `tells`.",
        "Offset of the crop. Sofa and Bystander are classes.",
        "Renews the lease; hearts of many.",
    ],
)
def test_a_good_sentence_passes(text):
    assert problems(PROSE.sentence_faults(text)) == []


def test_an_allowed_sentence_passes(monkeypatch):
    monkeypatch.setattr(PROSE, "ALLOWED_SENTENCES", ("tell objects apart",))
    assert problems(PROSE.sentence_faults("Classes tell objects apart. It tells more.")) == [
        "contains 'tells'"
    ]


SOURCE = '''"""Good docstring.

Of the module.
"""

# A comment that
# tells more.
"That"


def function(value):
    """What is returned."""
    print("That is wrong.")
    raise ValueError(f"{value} is read anew by {len('So it is.')}")
'''


def test_docstrings_comments_and_messages_of_a_python_file_are_read():
    found = [(fault.line, fault.problem) for fault in sorted(PROSE.python_faults(SOURCE))]
    assert found == [
        (3, "starts with Of: Of the module."),
        (6, "contains 'tells': A comment that tells more."),
        (12, "starts with What: What is returned."),
        (13, "starts with That: That is wrong."),
        (14, "contains 'anew': … is read anew by …"),
        (14, "starts with So: So it is."),
    ]


PAGE = """# What it does

Good prose
with `What` in code. That is a fault.

```console
$ echo Of the code
That is output.
```

| name | help |
|---|---|
| `x` | Of the table. |

- So is an item.
"""


def test_prose_and_tables_of_a_page_are_read_and_code_is_not():
    found = [(fault.line, fault.problem) for fault in sorted(PROSE.page_faults(PAGE))]
    assert found == [
        (1, "starts with What: What it does"),
        (3, "starts with That: That is a fault."),
        (13, "starts with Of: Of the table."),
        (15, "starts with So: So is an item."),
    ]


@pytest.mark.parametrize(
    ("declaration", "problem"),
    [
        ("flags.define('output', None, 'File to write.')", "help has fewer than 4 words"),
        (
            "flags.define('weight', 1.0, 'Weight of the second loss.')",
            "help of a number has no unit, range or default",
        ),
        (
            "absl_flags.DEFINE_integer('seed', None, 'Seed of the random numbers.')",
            "help of a number has no unit, range or default",
        ),
        (
            "class Loss:\n  dice: float = keyword(0.0, 'Weight of the Dice loss.')",
            "help of a number has no unit, range or default",
        ),
        (
            "class Loss:\n  rates: tuple[int, ...] = keyword((), 'Rates of the atrous branches.')",
            "help of a number has no unit, range or default",
        ),
    ],
)
def test_a_poor_help_text_is_found(declaration, problem):
    assert problems(PROSE.python_faults(declaration)) == [problem]


@pytest.mark.parametrize(
    "declaration",
    [
        "flags.define('output', None, 'Directory for the numbers and pictures.')",
        "flags.define('weight', 1.0, 'Weight of the second loss; 0: off.')",
        "flags.define('port', None, 'Port to listen on, below 65536.', kind=int)",
        "flags.define('folds', None, 'Folds of a cross-validation.', kind=int, least=2)",
        "class A:\n  size: int = keyword(0, 'Size of the square crops.', unit='pixels')",
        "class A:\n  flip: bool = keyword(True, 'Left-right flip of the crops.')",
    ],
)
def test_a_good_help_text_passes(declaration):
    assert problems(PROSE.python_faults(declaration)) == []


def test_the_command_prints_faults_and_fails(tmp_path, capsys):
    (tmp_path / "bad.py").write_text('"""Of the file."""\n')
    (tmp_path / "good.md").write_text("# Data sets\n")
    (tmp_path / "data.csv").write_text("Of no interest, That\n")
    assert PROSE.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"{tmp_path}/bad.py:1: starts with Of: Of the file.\n"
    assert PROSE.main([str(tmp_path / "good.md")]) == 0
