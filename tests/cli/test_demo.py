import pytest

import deeplab_jax
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.errors import DeepLabError


@pytest.fixture
def prepared(monkeypatch):
    """Calls of `prepare`, which writes nothing; the command ends before the training."""
    calls = []

    def stop(*given, **settings):
        raise DeepLabError("no training")

    monkeypatch.setattr("deeplab_jax.data.preparation.prepare", lambda *_, **__: calls.append(1))
    monkeypatch.setattr(deeplab_jax, "train", stop)
    return calls


def test_a_preparation_that_was_killed_is_repeated(tmp_path, prepared, capsys):
    (tmp_path / "data" / "shapes" / "1.0.0.incomplete").mkdir(parents=True)
    assert run(["demo", f"--workdir={tmp_path}"], Console()) == 2
    assert "no training" in capsys.readouterr().err
    assert len(prepared) == 1


def test_a_workdir_in_a_bucket_is_refused(prepared, capsys):
    assert run(["demo", "--workdir=gs://bucket/demo"], Console()) == 2
    assert "--workdir=gs://bucket/demo: the demo prepares" in capsys.readouterr().err
    assert not prepared
