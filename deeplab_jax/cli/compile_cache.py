"""Cache directories in which commands store compiled and traced programs."""

import contextlib
import os
import pathlib

from deeplab_jax.cli.flags import Flags
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import (
    ENGINE_SUFFIX,
    PROGRAM_CACHE,
    PROGRAM_SUFFIX,
    absolute,
    as_path,
    cache_directory,
    is_local,
)

VARIABLE, LIMIT = "JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE"
# Maximum size of the default directory of compiled programs, in bytes.
DEFAULT_BYTES = 4 * 2**30
OFF = "off"
# JAX's cache contains two files per program, with these suffixes: the program, and the time of its
# last use.
PROGRAM, USED = "-cache", "-atime"


def set_defaults() -> None:
    """Sets the environment variables of the cache directories to their defaults, if they are unset.

    When JAX is imported, it reads two of the variables: the directory of compiled programs, and the
    size limit of this directory. If the user has set the directory, the limit gets no default: JAX
    requires that either all or none of the programs that use a directory set a limit, and other
    programs may use this directory without one.
    """
    os.environ.setdefault(PROGRAM_CACHE, str(cache_directory() / "programs"))
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = str(cache_directory() / "compiled")
        os.environ.setdefault(LIMIT, str(DEFAULT_BYTES))


def define_flags(flags: Flags) -> None:
    """Defines the flags of the compile cache, which all commands have."""
    flags.define(
        "compile_cache",
        None,
        f"Directory of the compile cache, which stores compiled programs. --compile_cache={OFF} "
        f"disables the cache (default: ${VARIABLE}, else $DEEPLAB_CACHE/compiled, else "
        "~/.cache/deeplab_jax/compiled).",
    )
    flags.define(
        "clear_compile_cache",
        False,
        "Remove all programs from the compile cache before the command starts.",
    )


def apply_flags(flags: Flags) -> None:
    """Applies --compile_cache and --clear_compile_cache, and repairs the selected cache.

    The repair writes missing last-use times, see `mend`.

    Raises:
      DeepLabError: the cache cannot be cleared.
    """
    if flags.compile_cache is None and not flags.clear_compile_cache:
        mend(os.environ.get(VARIABLE, ""))
        return
    import jax

    if flags.compile_cache == OFF:
        jax.config.update("jax_enable_compilation_cache", False)
        os.environ[PROGRAM_CACHE] = ""
    elif flags.compile_cache:
        folder = str(absolute(as_path(flags.compile_cache)))
        jax.config.update("jax_compilation_cache_dir", folder)
        # The default limit is for the default directory, see `set_defaults`. JAX can limit the size
        # of local directories only.
        if not is_local(folder) or os.environ.get(LIMIT) == str(DEFAULT_BYTES):
            jax.config.update("jax_compilation_cache_max_size", -1)
        # Traced programs are stored locally.
        if is_local(folder):
            os.environ[PROGRAM_CACHE] = folder
    if flags.clear_compile_cache:
        for place in (_compiled_directory(), os.environ.get(PROGRAM_CACHE)):
            if place:
                clear(as_path(place))
    mend(_compiled_directory())


def _compiled_directory() -> str:
    """Returns the directory of compiled programs; "" if none is set."""
    import jax

    # The type stubs of JAX do not declare its options.
    return jax.config.jax_compilation_cache_dir or ""  # type: ignore[attr-defined]


def mend(directory: str) -> None:
    """Writes the missing last-use times of compiled programs.

    JAX writes a program first and its last-use time second. If a process is killed in between, the
    time is missing. JAX then stops writing to the cache if the cache has a size limit.

    Args:
      directory: directory of compiled programs; "": there is none.
    """
    # A cache in a bucket has no size limit, and therefore no last-use times.
    if not directory or not is_local(directory):
        return
    for program in as_path(directory).glob(f"*{PROGRAM}"):
        used = program.with_name(program.name.removesuffix(PROGRAM) + USED)
        # Another process may have removed the program, or the directory may not be writable.
        with contextlib.suppress(OSError):
            if not used.exists():
                used.write_bytes(program.stat().st_mtime_ns.to_bytes(8, "little"))


def clear(folder: pathlib.Path) -> None:
    """Removes the compiled, traced and exported programs from a directory, and no other file.

    Raises:
      DeepLabError: a file cannot be removed.
    """
    for file in folder.glob("*"):
        if file.name.endswith((PROGRAM, USED, PROGRAM_SUFFIX, ENGINE_SUFFIX)):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise DeepLabError(f"the compile cache cannot be cleared: {error}") from error
