"""Goodput from hand-written timelines."""

import pytest

from deeplab_jax.training.goodput import (
    CHECKPOINT,
    INPUT,
    VALIDATION,
    Timeline,
    goodput,
    process_start,
    read_timeline,
)


def event(name, time, step=None, **seconds):
    return {"event": name, "time": time, **({} if step is None else {"step": step}), **seconds}


# Ten seconds of start-up, two checkpoints (the second after step 20), killed at step 25.
FIRST = [
    event("start", 1000),
    event("training", 1010, 0),
    event("steps", 1020, 10, **{INPUT: 1.0}),
    event("steps", 1022, 10, **{CHECKPOINT: 2.0}),
    event("steps", 1032, 20),
    event("steps", 1042, 30),
]
# It resumes from step 25 a day later, validates for 3 s, and takes 1 s to end.
SECOND = [
    event("start", 9000),
    event("training", 9005, 25),
    event("steps", 9018, 35, **{VALIDATION: 3.0}),
    event("end", 9019, 35),
]


def test_a_single_start():
    found = goodput(FIRST)
    assert (found.starts, found.wall, found.start_up, found.lost) == (1, 42, 10, 0)
    assert (found.productive, found.input, found.checkpoint) == (29, 1, 2)
    assert found.fraction == pytest.approx(29 / 32)


def test_repeated_steps_and_the_time_between_starts_do_not_count():
    found = goodput(FIRST + SECOND)
    # Half of the ten steps after step 20 were repeated.
    assert (found.starts, found.wall, found.start_up, found.lost) == (2, 42 + 19, 15, 5)
    assert found.productive == 24 + 13
    assert found.fraction == pytest.approx(37 / (61 - 15 - 5))
    assert found.longest_start_up == 10


def test_a_start_that_was_killed_before_its_first_step_is_start_up():
    killed = [event("start", 5000), event("end", 5004)]
    found, without = goodput(FIRST + killed + SECOND), goodput(FIRST + SECOND)
    assert (found.starts, found.start_up) == (3, without.start_up + 4)
    assert found.fraction == without.fraction
    assert found.lost == without.lost


def test_a_later_start_from_an_older_checkpoint_repeats_the_steps_of_all_before():
    older = [event("start", 20000), event("training", 20001, 10), event("steps", 20021, 30)]
    found = goodput(FIRST + SECOND + older)
    # The first start lost 20 s after step 10, and the second all after its start-up.
    assert found.lost == 20 + 14
    assert found.productive == 9 + 20


def test_an_empty_timeline_has_no_goodput():
    assert goodput([]).fraction != goodput([]).fraction


def test_a_timeline_of_two_starts_is_read_back(tmp_path):
    for first in (0, 4):
        with Timeline(tmp_path, process_start()) as timeline:
            timeline.training(first)
            timeline.steps(first + 4, {INPUT: 0.25})
            timeline.steps(first + 8, {INPUT: 0.25, CHECKPOINT: 0.5})
    rows = read_timeline(tmp_path)
    assert [row["event"] for row in rows] == ["start", "training", "steps", "steps", "end"] * 2
    assert [row.get(INPUT) for row in rows[2:4]] == [0.25, None]
    assert rows[3][CHECKPOINT] == 0.5
    assert timeline.goodput() == goodput(rows)
    assert goodput(rows).starts == 2


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    with Timeline(tmp_path, 0.0):
        pass
    with (tmp_path / "timeline.jsonl").open("a") as file:
        file.write('{"event": "st')
    with Timeline(tmp_path, 0.0):
        pass
    assert [row["event"] for row in read_timeline(tmp_path)] == ["start", "end"] * 2
