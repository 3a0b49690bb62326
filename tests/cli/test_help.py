"""The help texts are those of tests/cli/golden; `python tests/cli/test_help.py` rewrites them."""

import pathlib

import pytest

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import COMMANDS, command_help, load_command, overview, run

GOLDEN = pathlib.Path(__file__).parent / "golden"
TEXTS = ["overview", *COMMANDS]


def help_text(name: str) -> str:
    """Returns what `deeplab-jax NAME --help` prints, or `deeplab-jax --help` for `overview`."""
    if name == "overview":
        return overview() + "\n"
    module, flags = load_command(name)
    return command_help(module.__doc__, flags) + "\n"


@pytest.mark.parametrize("name", TEXTS)
def test_the_help_is_the_golden_text(name, capsys):
    words = ["--help"] if name == "overview" else [name, "--help"]
    assert run(words, Console()) == 0
    printed = capsys.readouterr().out
    golden = (GOLDEN / f"{name}.txt").read_text("utf-8")
    assert printed == golden, "run python tests/cli/test_help.py if the change is intended"
    assert printed == help_text(name)


def test_every_golden_text_belongs_to_a_command():
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted(TEXTS)


@pytest.mark.parametrize("name", TEXTS)
def test_lines_fit_a_page(name):
    assert max(map(len, help_text(name).splitlines())) <= 100


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for text_name in TEXTS:
        (GOLDEN / f"{text_name}.txt").write_text(help_text(text_name), "utf-8")
