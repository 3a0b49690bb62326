"""Comparison page: one self-contained HTML file with embedded pictures."""

import base64
import html
import time
from collections.abc import Sequence

from experiments.comparison import pictures
from experiments.comparison.gathering import Comparison, Shown

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 24px auto; max-width: 1500px;
       padding: 0 16px; }
table { border-collapse: collapse; }
.numbers td, .numbers th { padding: 3px 12px; border-bottom: 1px solid #ddd; text-align: right; }
.numbers td:first-child, .numbers th:first-child { text-align: left; }
.pictures td, .pictures th { padding: 3px; text-align: center; font-weight: normal; }
.pictures img { width: 100%; min-width: 140px; display: block; }
.plots img { max-width: 100%; vertical-align: top; }
.legend span { display: inline-block; margin-right: 14px; white-space: nowrap; }
.legend i { display: inline-block; width: 13px; height: 13px; border: 1px solid #888;
            border-radius: 3px; margin-right: 5px; vertical-align: -2px; }
.quiet { color: #666; font-size: 13px; }
"""


def html_page(comparison: Comparison, title: str, command: str = "") -> str:
    """Returns the HTML of a comparison page.

    Args:
      comparison: result of `compare`.
      title: title of the page.
      command: command that created the page, shown at the bottom.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(comparison.dataset)}</p>",
        _numbers(comparison),
        "<h2>Images</h2>",
        _legend(comparison),
        _images(comparison),
        '<p class="quiet">Second row of each image: wrong pixels in red, void in light gray.</p>',
        '<div class="plots"><h2>Classes</h2>',
        _picture(pictures.class_bars(comparison), "IoU by class"),
        _outlines(comparison),
        "<h2>Speed and accuracy</h2>",
        _picture(pictures.speed_and_accuracy(comparison.models), "mean IoU by time"),
        '<p class="quiet">Mean time per shown image on the machine that created this page. The '
        "area of a point grows with the number of parameters.</p>",
        "<h2>Confusion matrices</h2>",
        *_confusions(comparison),
        "</div>",
        f'<p class="quiet">{html.escape(command)} {time.strftime("%Y-%m-%d")}</p>',
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _numbers(comparison: Comparison) -> str:
    head = (
        "model",
        "mean IoU, %",
        "pixel accuracy, %",
        "boundary F, %",
        "parameters, M",
        "multiply-adds, G",
        "ms per image",
    )
    rows = [_row("th", head)]
    for name, compared in comparison.models.items():
        metrics = compared.metrics
        shares = (metrics[key] for key in ("mean_iou", "pixel_accuracy", "boundary_f_score"))
        rows.append(
            _row(
                "td",
                (
                    name,
                    *(_percent(share) for share in shares),
                    f"{compared.parameters / 1e6:.2f}",
                    f"{compared.macs / 1e9:.2f}",
                    f"{1000 * compared.seconds_per_image:.0f}",
                ),
            )
        )
    return f'<table class="numbers">{"".join(rows)}</table>'


def _images(comparison: Comparison) -> str:
    columns = ("image", "truth", *comparison.models)
    rows = [_row("th", columns)]
    for shown in comparison.shown:
        rows += _image_rows(shown, comparison)
    return f'<table class="pictures">{"".join(rows)}</table>'


def _image_rows(shown: Shown, comparison: Comparison) -> list[str]:
    palette = comparison.palette
    first = [
        _picture(pictures.shown_image(shown.image), shown.name, "jpeg"),
        _picture(pictures.shown_classes(shown.truth, palette), "truth"),
        *(
            _picture(pictures.shown_classes(class_map, palette), name)
            for name, class_map in shown.predictions.items()
        ),
    ]
    second = [f'<span class="quiet">{html.escape(shown.name)}</span>', ""]
    second += [
        _picture(pictures.shown_errors(shown.image, shown.truth, class_map), f"errors of {name}")
        for name, class_map in shown.predictions.items()
    ]
    return [_raw_row(first), _raw_row(second)]


def _legend(comparison: Comparison) -> str:
    spans = (
        f'<span><i style="background: rgb{tuple(color)}"></i>{html.escape(name)}</span>'
        for name, color in pictures.shown_names(comparison).items()
    )
    return f'<p class="legend">{"".join(spans)}</p>'


def _outlines(comparison: Comparison) -> str:
    curves = pictures.trimap_curves(comparison.models)
    if curves is None:
        return ""
    return "<h2>Near boundaries</h2>" + _picture(curves, "mean IoU in bands around void")


def _confusions(comparison: Comparison) -> list[str]:
    return [
        _picture(pictures.confusion(compared, comparison.class_names, name), f"confusion of {name}")
        for name, compared in comparison.models.items()
    ]


def _picture(data: bytes, text: str, kind: str = "png") -> str:
    encoded = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(text, quote=True)}" src="data:image/{kind};base64,{encoded}">'


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _raw_row(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"
