"""Commands restart their process once, so that the C library uses huge pages."""

import os
import subprocess
import sys

import pytest

from deeplab_jax.cli import entry

PROGRAM = """
import os, sys
from deeplab_jax.cli import entry
print(os.getpid(), sys.argv[1:], flush=True)
entry.use_huge_pages()
print(os.environ["GLIBC_TUNABLES"], sys.stdin.read())
"""


def _run(tmp_path, environment=None, *, words=("a b", "é"), text=PROGRAM):
    program = tmp_path / "program.py"
    program.write_text(text)
    unset = (entry.TUNABLES, entry.RESTARTED)
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, program, *words],
        input="text of stdin",
        env=kept | (environment or {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_a_process_restarts_once_and_keeps_number_arguments_and_stdin(tmp_path):
    first, second, last = _run(tmp_path)
    assert first == second
    assert first.endswith("['a b', 'é']")
    assert last == "glibc.malloc.hugetlb=1 text of stdin"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_other_settings_of_the_c_library_are_kept(tmp_path):
    *starts, last = _run(tmp_path, {entry.TUNABLES: "glibc.malloc.arena_max=3"})
    assert len(starts) == 2
    assert last.startswith("glibc.malloc.arena_max=3:glibc.malloc.hugetlb=1 ")


def test_the_setting_of_the_user_is_kept(tmp_path):
    *starts, last = _run(tmp_path, {entry.TUNABLES: "glibc.malloc.hugetlb=0"})
    assert len(starts) == 1
    assert last.startswith("glibc.malloc.hugetlb=0 ")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_a_process_whose_variable_is_removed_restarts_once(tmp_path):
    # The C library removes the variable from processes with special privileges.
    removing = PROGRAM.replace("from deeplab", "os.environ.pop('GLIBC_TUNABLES', 0)\nfrom deeplab")
    *starts, last = _run(tmp_path, text=removing.replace('["GLIBC_TUNABLES"]', '.get("NONE")'))
    assert len(starts) == 2
    assert last == "None text of stdin"


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_do_not_restart(monkeypatch, platform):
    for name in (entry.TUNABLES, entry.RESTARTED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("the process restarts"))
    entry.use_huge_pages()
    assert entry.TUNABLES not in os.environ


def test_a_missing_interpreter_does_not_end_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv(entry.TUNABLES, "")
    monkeypatch.setenv(entry.RESTARTED, "")
    monkeypatch.delenv(entry.RESTARTED)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    entry.use_huge_pages()
