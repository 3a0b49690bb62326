"""Web page that segments uploaded images, and its HTTP API, built with Gradio."""

import ctypes
import logging
import math
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image

from deeplab_jax.app.service import OF_ONE_PASS, SegmentationService
from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_extra

# Constants of glibc's malloc.h.
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
# Minimum size, in bytes, of the blocks that are returned to the system; decoded images are larger.
LARGE = 256 * 1024
ARENAS = 2


def return_large_blocks() -> bool:
    """Configures glibc to return large blocks of memory to the system when they are freed.

    In its default configuration, glibc returns a freed block only if it is larger than a threshold,
    and then raises the threshold to the size of this block, up to 32 MiB. It also uses one arena
    per thread. The images of many requests then fragment the memory: with 500 × 375 photographs,
    the server grows by about 27 KiB per request, although it stores no image.

    Returns:
      True if glibc accepted the options; False if the C library is not glibc or rejects an option.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(set_option(M_MMAP_THRESHOLD, LARGE) and set_option(M_ARENA_MAX, ARENAS))


# Environment variables that disable telemetry and public share links.
SILENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_SHARE": "False",
}
# Seconds between two deletions of uploaded files, and minimum age of the deleted files in seconds.
CLEANING = (60, 300)
# Number of concurrent requests: one image is decoded while the network processes another.
AT_ONCE = 2
# Maximum number of visitors whose session state is stored.
VISITORS = 200
# Choice of the page without a map of uncertainty.
NO_MAP = "none"
# Buttons of each picture. Gradio's share button is left out, since it publishes the picture.
BUTTONS = ["download", "fullscreen"]
FONTS = ["system-ui", "sans-serif"]
LOGGER = logging.getLogger("deeplab_jax")
# Content security policy. It blocks a script that Gradio loads from another host, and that only
# pages that embed the app need.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:"
)


def import_gradio() -> ModuleType:
    """Returns the module gradio, with telemetry disabled.

    Raises:
      DeepLabError: Gradio is not installed.
    """
    os.environ.update(SILENT)
    return import_extra("gradio", "app", "the page")


def build_page(service: SegmentationService) -> Any:
    """Builds the page as a `gradio.Blocks`; `serving` serves it.

    Args:
      service: service that processes the requests.
    """
    gradio = import_gradio()

    def segment(image: Path | None, model: str) -> tuple[Any, ...]:
        with _errors_shown(gradio, image, model) as given:
            answer = service.answer(given, model)
        stages = ", ".join(f"{name} {value:g} ms" for name, value in answer.milliseconds.items())
        total = sum(answer.milliseconds.values())
        areas = [[name, round(100 * share, 2)] for name, share in answer.areas.items()]
        overlay, mask = map(_with_own_file, (answer.overlay, answer.mask))
        return overlay, mask, answer.legend, areas, f"**{total:.0f} ms**: {stages}"

    def uncertainty(image: Path | None, model: str, kind: str) -> PIL.Image.Image | None:
        # Without an image, there is nothing to draw when the visitor selects a map.
        if kind == NO_MAP or image is None:
            return None
        with _errors_shown(gradio, image, model) as given:
            return _with_own_file(service.uncertainty(given, model, kind))

    with gradio.Blocks(title="deeplab_jax", analytics_enabled=False, delete_cache=CLEANING) as page:
        gradio.Markdown("# Semantic segmentation")
        with gradio.Row():
            with gradio.Column():
                image = _image_input(gradio)
                model = gradio.Dropdown(list(service.names), value=service.names[0], label="Model")
                kind = gradio.Radio([NO_MAP, *OF_ONE_PASS], value=NO_MAP, label="Uncertainty")
                button = gradio.Button("Segment", variant="primary")
                timing = gradio.Markdown()
            with gradio.Column():
                shown = {"buttons": BUTTONS, "format": "png", "interactive": False}
                overlay = gradio.Image(label="Overlay", **shown)
                mask = gradio.Image(label="Mask", **shown)
                uncertain = gradio.Image(label="Uncertainty (bright: uncertain)", **shown)
            with gradio.Column():
                legend = gradio.HTML(label="Legend")
                areas = gradio.Dataframe(
                    headers=["class", "% of the image"], label="Class areas", interactive=False
                )
        shared = {"concurrency_limit": AT_ONCE, "concurrency_id": "segment"}
        outputs = [overlay, mask, legend, areas, timing]
        asked = {"fn": segment, "inputs": [image, model], "outputs": outputs, **shared}
        inputs = [image, model, kind]
        mapped = {"fn": uncertainty, "inputs": inputs, "outputs": [uncertain], **shared}
        button.click(**asked, api_name="segment").success(**mapped, api_visibility="private")
        image.input(**asked, api_visibility="private").success(**mapped, api_visibility="private")
        kind.input(**mapped, api_name="uncertainty")
    return page.queue(max_size=service.limits.waiting, api_open=True)


@contextmanager
def serving(
    service: SegmentationService, host: str = "127.0.0.1", port: int = 7860
) -> Iterator[str]:
    """Context manager that serves the page until its `with` block ends.

    Args:
      service: service that processes the requests.
      host: address to listen on (default: 127.0.0.1); 0.0.0.0 accepts requests from other machines.
      port: port to listen on (default: 7860).

    Yields:
      The address of the page.

    Raises:
      DeepLabError: Gradio is not installed, or the server cannot listen on this host and port.
    """
    with (
        tempfile.TemporaryDirectory(prefix="deeplab-jax-app-") as folder,
        _environment(GRADIO_TEMP_DIR=folder, no_proxy=_without_proxy(host)),
        _cleaning(Path(folder)),
    ):
        page = build_page(service)
        try:
            yield _launch(page, service, host, port)
        finally:
            page.close(verbose=False)


def _launch(page: Any, service: SegmentationService, host: str, port: int) -> str:
    """Starts the server of a page, and returns its address.

    Raises:
      DeepLabError: the server cannot listen on this host and port.
    """
    gradio = import_gradio()
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            max_file_size=math.ceil(service.limits.megabytes * 1e6),
            state_session_capacity=VISITORS,
            enable_monitoring=False,
            ssr_mode=False,
            run_history=False,
            footer_links=["api"],
            theme=gradio.themes.Default(font=FONTS, font_mono=["monospace"]),
            app_kwargs={"middleware": [_policy()]},
        )
    except OSError as error:
        message = f"cannot listen on {host}:{port} ({error}); choose another port or host"
        raise DeepLabError(message) from error
    return address


@contextmanager
def _cleaning(folder: Path) -> Iterator[None]:
    """Context manager that calls `remove_leftovers` regularly, in a thread."""
    every, age = CLEANING
    ended = threading.Event()

    def clean() -> None:
        while not ended.wait(every):
            remove_leftovers(folder, age)

    thread = threading.Thread(target=clean, name="cleaning", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def remove_leftovers(folder: Path, age: float) -> None:
    """Removes what Gradio does not remove: files of interrupted uploads, and empty directories.

    Args:
      folder: directory of uploaded and generated files. Gradio writes an upload to a file in this
        directory, and moves the file to a subdirectory when the upload is complete.
      age: minimum time since the last change of a removed file or directory, in seconds.
    """
    newest = time.time() - age
    for path in folder.glob("*"):
        # Directories of files that are in use are not empty, and Gradio may have moved the file.
        with suppress(OSError):
            if path.stat().st_mtime > newest:
                continue
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Context manager that sets environment variables and restores them at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _without_proxy(host: str) -> str:
    """Returns a value for the environment variable `no_proxy` that includes the server's host.

    The variable lists the hosts, separated by commas, to which requests are sent without an HTTP
    proxy. At startup, Gradio sends requests to its own server. If the server listens on this
    machine only, a proxy cannot reach the server.

    Args:
      host: host on which the server listens.
    """
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    return ",".join(filter(None, (given, "localhost", "127.0.0.1", "::1", host)))


@contextmanager
def _errors_shown(gradio: ModuleType, image: Path | None, model: str) -> Iterator[Path]:
    """Context manager that shows the errors of a request on the page.

    The page shows the message of a `DeepLabError`. Any other error is logged, and the page shows a
    general message instead, because the error may contain paths of the server.

    Args:
      gradio: the module gradio.
      image: path of the uploaded image; None: no image was uploaded, and the page shows an error.
      model: name of the model, for the log.

    Yields:
      The path of the image.
    """
    if image is None:
        raise gradio.Error("there is no image; upload one, or take one with the camera")
    if not image.is_file():
        raise gradio.Error(
            "the image is no longer on the server, which deletes files after some minutes; upload "
            "the image again"
        )
    try:
        yield image
    except DeepLabError as error:
        raise gradio.Error(str(error)) from None
    except Exception:
        # The message may contain paths of the server.
        LOGGER.exception("a request for the model %s failed", model)
        raise gradio.Error(
            "the server could not process the request; the server's log contains the reason"
        ) from None


def _image_input(gradio: ModuleType) -> Any:
    """Returns a Gradio image input whose value is the path of the uploaded file, not its pixels."""
    image = gradio.Image(
        label="Image", buttons=["fullscreen"], sources=["upload", "webcam", "clipboard"]
    )
    take_in = image.async_move_resource_to_block_cache

    def path_of(payload: Any) -> Path | None:
        return Path(payload.path) if payload is not None and payload.path else None

    async def take_in_uploads(resource: Any) -> str | None:
        if "://" in str(resource):
            raise gradio.Error("image URLs are not supported; upload the image itself")
        return await take_in(resource)

    # The methods are replaced in the instance, because for a subclass Gradio would write a file
    # beside the module of the subclass.
    image.preprocess = path_of
    image.async_move_resource_to_block_cache = take_in_uploads
    return image


def _with_own_file(pixels: np.ndarray) -> PIL.Image.Image:
    """Returns an image that Gradio stores in a file for this response alone.

    Gradio names the file of an image by a hash of its content. Two responses with equal images
    would share one file, and Gradio could overwrite the file while a client reads it.
    """
    image = PIL.Image.fromarray(pixels)
    image.info["answer"] = uuid.uuid4().hex
    return image


def _policy() -> Any:
    from starlette.middleware import Middleware

    class ContentSecurityPolicy:
        """Middleware that adds a Content-Security-Policy header to all responses.

        With this header, browsers load scripts, styles and data only from the server of the page.
        """

        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def with_policy(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"].append((b"content-security-policy", POLICY.encode()))
                await send(message)

            await self._app(scope, receive, with_policy if scope["type"] == "http" else send)

    return Middleware(ContentSecurityPolicy)
