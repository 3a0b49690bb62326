"""Entry point of the installed command `deeplab-jax`: starts the process with huge pages.

On CPUs, XLA allocates new arrays in every step, and Linux clears each page at its first use.
With pages of 2 MiB instead of 4 KiB, a training step takes 14 to 20 % less time
(docs/benchmarks.md).
"""

import os
import sys

# The C library reads this variable when a process starts, before Python runs.
TUNABLES, HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
# Set before the restart. For an interpreter with special privileges, the C library removes its own
# variable, so this one alone prevents that the process restarts for ever.
RESTARTED = "DEEPLAB_JAX_RESTARTED"


def use_huge_pages() -> None:
    """Restarts this process with huge pages for large arrays, if it runs on Linux.

    The process keeps its number, its open files and its arguments. A value of the variable that the
    user has set, such as glibc.malloc.hugetlb=0, is not changed. Other C libraries than glibc, and
    glibc before 2.35, ignore the variable. A debugger would lose the process, so the process is not
    restarted under one.
    """
    tunables = os.environ.get(TUNABLES, "")
    is_set = HUGE_PAGES in tunables or RESTARTED in os.environ
    if sys.platform != "linux" or is_set or sys.gettrace() is not None:
        return
    os.environ[RESTARTED] = "1"
    os.environ[TUNABLES] = ":".join(filter(None, [tunables, f"{HUGE_PAGES}=1"]))
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:
        # For example, the interpreter has been replaced or removed. Huge pages are optional.
        return


def console_script() -> None:
    """Runs the command `deeplab-jax` and exits with its status."""
    use_huge_pages()
    # The import takes 0.15 s, which a restart after it would double.
    from deeplab_jax.cli.main import run_process

    run_process()
