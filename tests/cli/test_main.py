import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from deeplab_jax.cli.console import Console, duration, make_table
from deeplab_jax.cli.job import leave
from deeplab_jax.cli.main import COMMANDS, exit_status, run, spell_out_overrides
from deeplab_jax.errors import DeepLabError

TRAIN = ["train", "--config=shapes", "--workdir=unwritten"]


@pytest.fixture
def deeplab(tmp_path, monkeypatch, capsys):
    """Runs the program in an empty directory; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: (run(arguments, Console()), *capsys.readouterr())


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_the_overview_lists_every_command(deeplab, word):
    status, printed, error = deeplab(word)
    assert (status, error) == (0, "")
    assert all(f"  {name} " in printed for name in COMMANDS)


def test_nothing_at_all_is_a_mistake_that_gets_the_overview(deeplab):
    status, printed, _ = deeplab()
    assert status == 2
    assert "usage: deeplab-jax COMMAND" in printed


def test_characters_that_the_encoding_of_stdout_lacks_are_replaced():
    process = subprocess.run(
        [sys.executable, "-m", "deeplab_jax.cli.main", "--help"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert b"usage: deeplab-jax COMMAND [--flag=value ?]" in process.stdout


@pytest.mark.parametrize("word", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_shows_usage_example_and_flags(deeplab, command, word):
    status, printed, error = deeplab(command, word)
    assert (status, error) == (0, "")
    assert f"usage: deeplab-jax {command}" in printed
    assert "example" in printed
    assert "--debug" in printed


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "--confg=shapes"], "'confg'. Did you mean: config"),
        (["predict", "--ema=perhaps"], "--ema=perhaps"),
        (["predict", "--ema", "false", "a.jpg"], "must follow an equals sign; give --ema=false"),
        (["export", "--portable", "False"], "give --portable=False"),
        (["evaluate", "--noema=true"], "give --noema alone, or --ema=VALUE"),
        (["evaluate", "--nocrf="], "--nocrf takes no value"),
        (["evaluate", "--crf", "deeplab_msc"], "an equals sign; give --crf=deeplab_msc"),
        (["predict", "--crf", "crf.json", "a.jpg"], "an equals sign; give --crf=crf.json"),
        (["evaluate", "--space=2"], "unknown flag --space; it was renamed to --spatial"),
        (["predict", "--space=2"], "Unknown command line flag 'space'"),
        (["inspect", "deeplab_v3", "--config.seed=3"], "Unknown command line flag 'config.seed'"),
        (["train", "shapes"], "train takes only flags, not 'shapes'"),
        (["train"], "give --config=FILE and --workdir=DIR"),
        (["train", "--config=shape", "--workdir=unwritten"], "did you mean 'shapes'?"),
        (["train", "--config=shapes:stesp=3", "--workdir=unwritten"], "did you mean 'steps'?"),
        ([*TRAIN, "--config.training.num_stesp=3"], "did you mean 'training.num_steps'?"),
        ([*TRAIN, "--config.training.num_steps", "few"], "must be of type int, got 'few'"),
        ([*TRAIN, "--config.seed"], "seed must be of type int, got ''"),
        ([*TRAIN, "--config.data.data_dir=nowhere"], "no dataset 'shapes' under nowhere"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(deeplab, tmp_path, arguments, complaint):
    status, printed, error = deeplab(*arguments)
    assert (status, printed, error.count("\n")) == (2, "", 1)
    assert error.startswith("deeplab-jax: ")
    assert complaint in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--debug", "--debug=true", "--debug=True", "--debug=1"])
def test_debug_shows_where_an_error_comes_from(deeplab, flag):
    with pytest.raises(DeepLabError, match="num_stesp"):
        deeplab(*TRAIN, "--config.training.num_stesp=3", flag)


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "deeplab-jax: interrupted\n"),
        (
            OSError(28, "No space left\non disk"),
            2,
            "deeplab-jax: [Errno 28] No space left on disk\n",
        ),
    ],
)
def test_the_reason_for_an_early_end_is_printed(deeplab, monkeypatch, raised, status, said):
    def fail(flags, paths, console):
        raise raised

    monkeypatch.setattr("deeplab_jax.cli.train.run", fail)
    assert deeplab("train") == (status, "", said)


def test_other_errors_are_ours_and_keep_their_traceback(deeplab, monkeypatch):
    monkeypatch.setattr("deeplab_jax.cli.train.run", lambda *given: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        deeplab("train")


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        (["--config.seed=3"], ["--override=seed=3"]),
        (["--config.seed", "3", "x"], ["--override=seed=3", "x"]),
        (["--config.data.name=a=b"], ["--override=data.name=a=b"]),
        (["--config=shapes", "--workdir=w"], ["--config=shapes", "--workdir=w"]),
        (["--config.seed"], ["--override=seed="]),
    ],
)
def test_overrides_are_spelled_out(given, spelled):
    assert spell_out_overrides(given) == spelled


# Markup and emoji codes of rich, in the names of files.
NAME = "a[bold]b[/bold] :car: [1/2].png"


def test_text_is_printed_as_it_is(capsys):
    console = Console()
    console.print(NAME)
    console.print(make_table([NAME], [[NAME]]))
    console.message(NAME)
    console.warning(NAME)
    console.error(NAME)
    printed, error = capsys.readouterr()
    assert printed.count(NAME) == 3
    assert error.count(NAME) == 3


def test_the_live_line_shows_a_description_as_it_is(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    list(Console().track([1, 2], NAME))
    assert NAME in capsys.readouterr().err


def start_training(console):
    """Shows the live line of a training run that does not reach its last step."""
    scalars = dict.fromkeys(("loss", "learning_rate", "images_per_second", "seconds_left"), 1.0)
    console.training_step(5, 9, scalars)


SHOW_CURSOR = "\x1b[?25h"


def test_the_live_line_ends_before_a_result_is_printed(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = Console()
    start_training(console)
    assert SHOW_CURSOR not in capsys.readouterr().err
    console.print("mean IoU 0.5 after 5 steps")
    assert SHOW_CURSOR in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError, DeepLabError])
def test_an_error_that_is_raised_ends_the_live_line(monkeypatch, capsys, error):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = Console()

    def work():
        start_training(console)
        raise error("no")

    with pytest.raises(error):
        exit_status(work, console, debug=True)
    assert SHOW_CURSOR in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3661, "1:01:01")]
)
def test_durations_are_read_at_a_glance(seconds, text):
    assert duration(seconds) == text


def test_an_error_of_a_bucket_is_one_line_unless_debugged(capsys):
    errors = pytest.importorskip("google.auth.exceptions")

    def work():
        raise errors.DefaultCredentialsError("no credentials;\nrun the login")

    assert exit_status(work, Console(), debug=False) == 2
    assert capsys.readouterr().err.endswith(
        "the bucket cannot be used: no credentials; run the login\n"
    )
    with pytest.raises(errors.DefaultCredentialsError):
        exit_status(work, Console(), debug=True)


def test_an_unexpected_error_is_not_hidden():
    def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exit_status(work, Console(), debug=False)


def test_a_process_of_a_job_ends_although_its_output_is_closed(monkeypatch):
    def fail():
        raise BrokenPipeError

    statuses = []
    monkeypatch.setattr("deeplab_jax.cli.job.os._exit", statuses.append)
    monkeypatch.setattr("deeplab_jax.cli.job.sys.stdout", SimpleNamespace(flush=fail))
    # `os._exit` does not return, so the error is raised only in this test.
    with pytest.raises(BrokenPipeError):
        leave(3)
    assert statuses == [3]
