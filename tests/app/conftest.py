"""A server of its own process, on this machine alone."""

import importlib.util
import os
import pathlib
import socket
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="session")
def address():
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio, of the app extra, is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Nothing listens on this port. The server must start although a proxy is configured.
    environment = os.environ | {
        "PYTHONPATH": str(HERE.parent / "helpers"),
        "http_proxy": "http://127.0.0.1:9",
        "no_proxy": "example.org",
    }
    server = subprocess.Popen(
        [sys.executable, str(HERE / "serve_stand_in.py"), str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        address = server.stdout.readline().strip()
        assert address == f"http://127.0.0.1:{port}/", "the server did not start"
        yield address
    finally:
        server.terminate()
        server.wait(20)
        server.stdout.close()
