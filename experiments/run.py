"""usage: python -m experiments.run TABLE [--preset=P] [--rows=R] [--seeds=N] [--grid FIELD=A,B …]

Trains and evaluates the rows of a table and writes a report. TABLE is a name such as v3/table5, or
a Python file that defines a TABLE (see experiments/example.py). Without TABLE, the names of all
tables are printed. Finished training runs are not repeated. To resume an interrupted run, repeat
the command.

A preset adapts a table to a dataset and to a machine. `paper` runs the table as published. `camvid`
and `voc_subset` have networks and crops for two CPU cores, `camvid_gpu` for a GPU. `smoke` only
tests that everything runs, on synthetic images.

--grid FIELD=A,B runs every row with each of the values A and B. FIELD is a config field, or
inference.NAME for a field of `InferenceOptions`. Tuples are written in brackets. --submit=local and
--submit=slurm run the training through submitit, in local processes or on a SLURM cluster.

examples:
  python -m experiments.run v3/table5 --preset=smoke
  python -m experiments.run v3/table10 --preset=camvid --seeds=3 --data_dir=data
  python -m experiments.run experiments/example.py --grid "model.atrous_rates=(3,6,9),(6,12,18)"
  python -m experiments.run v3/table3 --rows=1-4 --submit=slurm --slurm=slurm_partition=gpu \\
      --slurm=gpus_per_node=1
"""

import hashlib
import pathlib
from collections.abc import Sequence

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.errors import DeepLabError
from experiments import commands
from experiments.catalog import find_table, list_tables
from experiments.selection import select_rows

SUBMISSIONS = ("here", "local", "slurm")


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command `experiments.run`."""
    own = {"flag_values": flags}
    commands.define_workdir(flags)
    absl_flags.DEFINE_string(
        "preset", "paper", "Preset to run: smoke, camvid, camvid_gpu, voc_subset or paper.", **own
    )
    absl_flags.DEFINE_string(
        "rows",
        "",
        "Rows by number, range or part of the label, separated by commas, as in 1,3-5, or by `;` "
        "if labels contain commas; empty: all.",
        **own,
    )
    absl_flags.DEFINE_integer(
        "seeds", 1, "Number of training runs per row, with seeds 0, 1, …", lower_bound=1, **own
    )
    absl_flags.DEFINE_string("data_dir", "data", "Directory of the prepared datasets.", **own)
    absl_flags.DEFINE_string(
        "init",
        "",
        "Name or path of initial weights for the backbone, for presets that scale tables down "
        "(default: random weights).",
        **own,
    )
    flags.define_repeatable(
        "grid",
        "Config field or inference.FIELD with its values, as FIELD=VALUE,VALUE; repeat the flag "
        "for several fields.",
    )
    absl_flags.DEFINE_string(
        "name", "", "Name of the report (default: derived from table and grid).", **own
    )
    absl_flags.DEFINE_enum(
        "submit",
        "here",
        SUBMISSIONS,
        "Place of the training runs: this process (here), local processes, or a SLURM cluster.",
        **own,
    )
    absl_flags.DEFINE_integer(
        "processes", 1, "Number of parallel processes for --submit=local.", lower_bound=1, **own
    )
    flags.define_repeatable(
        "slurm",
        "Setting of submitit's executor for --submit, as in slurm_partition=gpu; repeat the flag "
        "for several settings.",
    )


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Runs a table, or prints the names of all tables."""
    if not paths:
        names = list_tables()
        width = max(map(len, names)) + 2
        for name in names:
            console.print(f"{name:<{width}}{find_table(name).title}")
        return
    if len(paths) > 1:
        raise DeepLabError(f"give one table at a time; got {', '.join(paths)}")
    if "/" in flags.name:
        raise DeepLabError(f"--name={flags.name} must be a file name without /, as in v3-table5")
    _check_submission(flags)
    # Imported here so that --help and wrong flags do not wait for JAX.
    from experiments.batch import open_request, run_here, submit
    from experiments.grid import parse_grid
    from experiments.storage import Request

    # Reports of a stored request are also written from other directories.
    is_file = paths[0].endswith(".py")
    request = Request(
        name=flags.name or request_name(paths[0], flags.grid, flags.init),
        table=str(pathlib.Path(paths[0]).absolute()) if is_file else paths[0],
        preset=flags.preset,
        grid=tuple(flags.grid),
        seeds=flags.seeds,
        init=flags.init,
        data_dir=flags.data_dir,
    )
    opened = open_request(request, flags.workdir)
    cases = select_rows(opened.cases, flags.rows, len(parse_grid(request.grid).points()))
    if flags.submit == "here":
        run_here(opened, cases, console)
    else:
        submit(opened, cases, flags.submit, flags.processes, flags.slurm, console)


def _check_submission(flags: absl_flags.FlagValues) -> None:
    """Checks that no flag is given that has no effect with the value of --submit."""
    if flags.submit != "local" and not flags["processes"].using_default_value:
        raise DeepLabError("--processes requires --submit=local; give both or omit both")
    if flags.submit == "here" and flags.slurm:
        raise DeepLabError(
            f"--slurm={flags.slurm[0]} requires --submit=slurm or --submit=local; give both or "
            "omit both"
        )


def request_name(table: str, grid: Sequence[str], init: str) -> str:
    """Returns the default name of a report, derived from the name of the table.

    If `grid` or `init` is not empty, a hash of both is appended to the name.
    """
    name = table.removesuffix(".py").replace("/", "-").strip(".-")
    if not (grid or init):
        return name
    digest = hashlib.sha256("\n".join([*grid, init]).encode()).hexdigest()[:6]
    return f"{name}-{digest}"


if __name__ == "__main__":
    commands.start("experiments.run", __doc__, define_flags, run)
