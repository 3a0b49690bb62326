"""Weights & Biases and MLflow without network access."""

import sqlite3
import struct

import pytest
from reporters import RecordingReporter

from deeplab_jax.training.writers import Monitor

pytestmark = pytest.mark.slow


def write_twice(workdir, writer):
    """Writes steps 1 to 6, and resumes from step 4 up to step 8."""
    workdir.mkdir()
    reporter = RecordingReporter()
    for first, last in ((0, 6), (4, 8)):
        config = {"seed": 1, "data.name": "shapes"}
        with Monitor(workdir, first, (writer,), config, reporter) as monitor:
            for step in range(first + 1, last + 1):
                monitor.write(step, {"loss": 1 / step})
    assert reporter.warnings == []


def records(content):
    """Yields the records of a .wandb file: a header of 7 bytes and a LevelDB log."""
    position, parts = 7, []
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        # 1: whole record, 4: its last part.
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


# The library calls deprecated functions of SQLAlchemy.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_resumed_run_continues_in_mlflow(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_twice(tmp_path / "run", "mlflow")
    with sqlite3.connect(tmp_path / "run" / "mlflow.db") as database:
        runs = database.execute("select name, status from runs").fetchall()
        losses = database.execute("select step, value from metrics where key = 'loss'").fetchall()
        parameters = dict(database.execute("select key, value from params").fetchall())
    assert runs == [("run", "FINISHED")]
    assert dict(losses) == {step: 1 / step for step in range(1, 9)}
    assert parameters == {"seed": "1", "data.name": "shapes"}


def test_a_resumed_run_continues_in_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    write_twice(tmp_path / "run", "wandb")
    identifiers, losses = set(), {}
    for path in sorted((tmp_path / "run").glob("wandb/offline-run-*/*.wandb")):
        for data in records(path.read_bytes()):
            record = Record.FromString(data)
            if record.HasField("run"):
                identifiers.add(record.run.run_id)
            values = {
                item.key or item.nested_key[0]: item.value_json for item in record.history.item
            }
            if "loss" in values:
                losses[int(values["step"])] = float(values["loss"])
    assert len(identifiers) == 1
    assert losses == pytest.approx({step: 1 / step for step in range(1, 9)})
