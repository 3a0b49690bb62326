"""The app's HTTP interface: answers, and reasons where there is none."""

import concurrent.futures
import io
import struct
import urllib.error
import urllib.request
import zlib

import numpy as np
import pytest
from client import RefusedError, call, fetch, segment, upload
from PIL import Image

pytestmark = pytest.mark.slow


def png(*size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return pixels, buffer.getvalue()


def enormous():
    """A PNG of a few bytes whose header claims 60,000 × 60,000 pixels."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_request_returns_mask_overlay_and_legend(address):
    pixels, encoded = png(40, 60)
    overlay, mask, legend, areas, told = segment(address, upload(address, encoded), "red")
    shown = np.asarray(Image.open(io.BytesIO(fetch(address, mask["path"]))).convert("RGB"))
    palette = np.array([(0, 0, 0), (107, 142, 35), (128, 64, 128), (0, 0, 142)])
    np.testing.assert_array_equal(shown, palette[pixels[..., 0] % 4])
    assert Image.open(io.BytesIO(fetch(address, overlay["path"]))).size == (60, 40)
    assert "&lt;b&gt;road&lt;/b&gt;" in legend
    assert "<b>road" not in legend
    assert sum(share for _, share in areas["data"]) == pytest.approx(100, abs=0.1)
    assert "network" in told


@pytest.mark.parametrize("kind", ["confidence", "entropy"])
def test_a_request_returns_a_map_of_uncertainty(address, kind):
    pixels, encoded = png(40, 60)
    (drawn,) = call(address, "uncertainty", upload(address, encoded), "red", kind)
    shown = np.asarray(Image.open(io.BytesIO(fetch(address, drawn["path"]))).convert("RGB"), int)
    assert shown.shape == (40, 60, 3)
    # The stand-in is the more certain, the more green a pixel has; certain pixels are dark.
    brightness, green = shown.sum(axis=-1), pixels[..., 1]
    assert (np.diff(brightness.ravel()[np.argsort(green.ravel(), kind="stable")]) <= 0).all()
    assert brightness.min() < brightness.max() / 3


def test_no_map_of_uncertainty_is_drawn_unless_it_is_selected(address):
    path = upload(address, png(8, 8)[1])
    assert call(address, "uncertainty", path, "red", "none") == [None]
    with pytest.raises(RefusedError, match=r"entrophy|not in"):
        call(address, "uncertainty", path, "red", "entrophy")


def test_clients_with_the_same_image_get_whole_answers(address):
    """What one is reading no answer to another writes over."""
    encoded = png(300, 400)[1]

    def ask(_):
        overlay = segment(address, upload(address, encoded), "red")[0]
        return Image.open(io.BytesIO(fetch(address, overlay["path"]))).convert("RGB").tobytes()

    with concurrent.futures.ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(ask, range(60)))
    assert len(set(answers)) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image at all", "not an image, or in a format"),
        (b"", "empty"),
        (png(50, 50)[1][:200], "truncated or damaged"),
        (png(1001, 1001)[1][:900000], "more than 1 million pixels"),
        (enormous(), "more than 1 million pixels"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "not an image, or in a format",
        ),
    ],
    ids=["text", "empty", "truncated", "large", "enormous", "svg"],
)
def test_bad_uploads_are_refused_with_the_reason(address, content, reason):
    with pytest.raises(RefusedError, match=reason) as refused:
        segment(address, upload(address, content), "red")
    # Where the server keeps files is nobody's business.
    assert "/tmp" not in str(refused.value)


def test_a_file_that_is_too_large_is_not_taken(address):
    with pytest.raises(RefusedError, match="exceeded"):
        upload(address, b"\0" * 1_500_001)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "was not uploaded"),
        ("../../../../etc/passwd", "was not uploaded"),
        ("http://127.0.0.1:1/image.png", "image URLs are not supported"),
        ("file:///etc/passwd", "image URLs are not supported|was not uploaded"),
    ],
)
def test_paths_that_were_not_uploaded_are_refused(address, path, reason):
    with pytest.raises(RefusedError, match=reason):
        segment(address, path, "red")


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd"])
def test_files_of_the_machine_are_not_given(address, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        fetch(address, path)
    error.value.close()
    assert error.value.code in (403, 404)


def test_a_name_that_would_leave_the_folder_is_kept_inside(address):
    path = upload(address, png(8, 8)[1], "../../../../tmp/escaped.png")
    assert ".." not in path
    assert "deeplab-jax-app-" in path
    assert segment(address, path, "red")


def test_unknown_models_and_slow_ones(address):
    path = upload(address, png(8, 8)[1])
    with pytest.raises(RefusedError, match=r"other|not in"):
        segment(address, path, "other")
    with pytest.raises(RefusedError, match=r"no result within 1\.5 s"):
        segment(address, path, "slow")


def test_the_page_requests_no_other_host(address):
    with urllib.request.urlopen(address, timeout=20) as answer:
        policy = answer.headers["content-security-policy"]
        page = answer.read().decode()
    assert "default-src 'self'" in policy
    assert "fonts.googleapis.com" not in page
