"""The unit of docs/guides/app.md: what it starts, and that this comes back after a kill."""

import configparser
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import load_command, run

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "guides" / "app.md"


@pytest.fixture(scope="module")
def unit():
    text = re.search(r"```ini\n(\[Unit\].*?)```", PAGE.read_text(), re.DOTALL).group(1)
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(text)
    return parser


def test_the_command_of_the_unit_is_one(unit):
    program, command, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("bin/deeplab-jax")
    _, flags = load_command(command)
    flags([command, *arguments])
    assert (flags.host, flags.port) == ("127.0.0.1", 7860)


@pytest.mark.parametrize("limit", ["megabytes", "megapixels", "seconds"])
@pytest.mark.parametrize("value", ["inf", "nan", "0", "1e10"])
def test_limits_that_cannot_be_kept_are_refused_at_the_start(limit, value, capsys):
    assert run(["app", f"--max_{limit}={value}"], Console()) == 2
    assert "must be above 0 and at most 1,000,000,000" in capsys.readouterr().err


@pytest.mark.slow
def test_it_comes_back_after_a_kill(unit):
    """A supervisor that does what `Restart` and `RestartSec` say; systemd itself is not here."""
    pytest.importorskip("gradio")
    service = unit["Service"]
    assert service["Restart"] == "always"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE / "serve_stand_in.py"), str(port)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "helpers")}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        server.send_signal(signal.SIGKILL)
        assert server.wait(10) == -signal.SIGKILL
        time.sleep(float(service["RestartSec"]))
        # The port is free again and nothing that was left behind is in the way.
        server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        wait_for(port)
    finally:
        server.terminate()
        server.wait(20)


def wait_for(port):
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                assert answer.status == 200
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.fail("the server did not start within two minutes")
