"""One self-contained HTML page about a comparison of detectors."""

import base64
import html
import io
import os
import platform
import re
from string import Template

import numpy as np
from sklearn.base import clone

from skocc._samples.sources import ImageFile
from skocc.model_selection._indexing import take
from skocc.plotting._axes import load_pyplot
from skocc.plotting._curves import RocCurveDisplay
from skocc.plotting._histogram import ScoreHistogramDisplay
from skocc.plotting._inputs import read_pictures, show_picture
from skocc.plotting._maps import AnomalyMapDisplay

_STYLES = {"light": ["default"], "dark": ["default", "dark_background"]}
# Inches of a column of an example, and dots an inch.
_CELL, _DPI = 1.15, 100
_METRICS = {
    "image_auroc": "AUROC of images",
    "pixel_auroc": "AUROC of pixels",
    "aupro": "AUPRO",
    "recall_at_1_percent": "Found at 1 % false alarms",
    "recall_at_5_percent": "Found at 5 % false alarms",
    "mass_volume": "Mass-volume area (lower is better)",
    "excess_mass": "Excess-mass area (higher is better)",
    "p_value": "p-value, against the best",
}
_COSTS = {
    "fit_seconds": "Fit, s",
    "ms_per_image": "Score, ms an image",
    "peak_mib": "Memory, MiB",
}
_CRITERIA = {
    "anomalies": "The anomalies are those that are labeled.",
    "synthetic anomalies": "No image is labeled as anomalous. The anomalies are made from "
    "normal images that were held out, and the columns marked with * need no label. They "
    "only suggest which detector finds real defects best.",
    "uniform samples": "No sample is labeled as anomalous: normal samples are compared "
    "with uniform ones, which needs no label.",
}
_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --text: #1c2024; --soft: #59636e; --back: #ffffff;
  --card: #f4f6f8; --line: #d0d7de; --mark: #e4f0e4; --bad: #a4262c; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ec; --soft: #a3adb8;
  --back: #14181c; --card: #1e242a; --line: #3a434c; --mark: #1f3a28; --bad: #ff9a94; } }
body { margin: 0 auto; max-width: 1200px; padding: 1rem; background: var(--back);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1rem 0 .4rem; }
.soft, figcaption, small { color: var(--soft); font-size: .85rem; }
.error { color: var(--bad); overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th { font-size: .85rem; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--back);
  min-width: 7rem; max-width: 11rem; overflow-wrap: break-word; }
td, td small { white-space: nowrap; }
td small { display: block; }
td.error { text-align: left; white-space: normal; }
tr.best td, tr.best th:first-child { background: var(--mark); }
img { max-width: 100%; height: auto; display: block; }
figure { margin: 0; }
figcaption { overflow-wrap: anywhere; }
.histograms { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.examples { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 260px), 1fr)); }
details { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .8rem;
  margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
pre { background: var(--card); padding: .7rem; border-radius: 6px; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .85rem; }
</style>
</head>
<body>
<h1>$title</h1>
$summary
<h2>Table</h2>
$table
$curves
$histograms
$examples
<h2>How it was run</h2>
$run
</body>
</html>
""")


def check_matplotlib():
    """Raise an ImportError that says what to install where matplotlib is missing."""
    load_pyplot("The page of a comparison")


def page_of(comparison, *, title, detectors, command=None, versions=None):
    """Return a page about a comparison, which needs no other file, as bytes.

    Parameters
    ----------
    comparison : Bunch
        What :func:`~skocc.model_selection.compare` returns.
    title : str
    detectors : dict of str to estimator
        Those that were compared, of which the parameters are shown.
    command : str, default=None
        How the comparison can be repeated.
    versions : dict of str to str, default=None
        Of the packages.

    Returns
    -------
    page : bytes
        HTML in UTF-8. Names of files and detectors, and texts of errors, are escaped, and
        of paths only the last two parts are shown.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    rows = _rows(comparison.table)
    has_curves = comparison.criterion != "uniform samples" and comparison.best is not None
    parts = {
        "title": _text(title),
        "summary": _summary(comparison, rows),
        "table": _table(comparison, rows),
        "curves": _curves(comparison, rows) if has_curves else "",
        "histograms": _histograms(comparison) if comparison.best is not None else "",
        "examples": _all_examples(comparison, rows) if has_curves else "",
        "run": _run(comparison, detectors, command, versions),
    }
    return _PAGE.substitute(parts).encode("utf-8", errors="backslashreplace")


def _summary(comparison, rows):
    test, labels = comparison.test[0], comparison.labels[0]
    n_splits, n_normal = len(comparison.test), int(np.sum(labels == 1))
    text = f"<p>{len(rows)} detectors, scored on {n_normal} normal images"
    if n_normal < len(test):
        text += f" and {len(test) - n_normal} anomalous ones"
    text += " that none was trained on" + ("." if n_splits == 1 else ", in each of "
            f"{n_splits} splits; curves and pictures are those of the first.")  # fmt: skip
    text += f" {_CRITERIA[comparison.criterion]}</p>"
    if comparison.best is None:
        return text + '<p class="error">All detectors failed.</p>'
    main = _metric_columns(rows[0])[0]
    shown = _cell(rows[0], main)
    n_failed = sum(row["error"] is not None for row in rows)
    failed = f" {n_failed} failed; the table says why." if n_failed else ""
    return (
        f"{text}<p><strong>{_text(comparison.best)}</strong> ranks them best: "
        f"{_heading(main)} {shown}.{failed}</p>"
    )


def _table(comparison, rows):
    """Return the table; a detector that failed has its error in place of numbers."""
    metrics = _metric_columns(rows[0])
    names = [*metrics, *_COSTS]
    lines = [
        f'<tr><th scope="col">Detector</th>{"".join(_th(name) for name in names)}</tr>'
    ]
    for row in rows:
        name = f'<th scope="row">{_text(row["detector"])}</th>'
        if row["error"] is not None:
            error = _text(_without_folders(row["error"]))
            lines.append(
                f'<tr>{name}<td class="error" colspan="{len(names)}">{error}</td></tr>'
            )
            continue
        cells = "".join(f"<td>{_cell(row, name)}</td>" for name in names)
        kind = ' class="best"' if row["detector"] == comparison.best else ""
        lines.append(f"<tr{kind}>{name}{cells}</tr>")
    notes = "Memory: what fitting and scoring added to the process."
    if "p_value" in metrics:
        notes = (
            "In brackets: intervals of a bootstrap over the images. p-values: paired "
            f"bootstrap of the difference in AUROC, not corrected for their number. {notes}"
        )
    return (
        f'<div class="wide"><table><thead>{lines[0]}</thead><tbody>{"".join(lines[1:])}'
        f'</tbody></table></div><p class="soft">{notes}</p>'
    )


def _curves(comparison, rows):
    fitted = [row["detector"] for row in rows if row["error"] is None]

    def draw(pyplot):
        figure, ax = pyplot.subplots(figsize=(5.2, 5), layout="constrained")
        colors = pyplot.get_cmap("tab20")
        for index, name in enumerate(fitted):
            RocCurveDisplay.from_predictions(
                comparison.labels[0],
                comparison.scores[name][0],
                name=_plain(name),
                ax=ax,
                color=colors(2 * index % 20 + index // 10),
            )
        ax.legend(fontsize="small", loc="lower right", labelspacing=0.3)
        return figure

    main = _metric_columns(rows[0])[0]
    areas = "; ".join(f"{row['detector']}: {row[main]:.3f}" for row in rows[: len(fitted)])
    alt = f"ROC curves of {len(fitted)} detectors. Areas: {areas}"
    return f"<h2>ROC curves</h2><figure>{_picture(draw, alt)}</figure>"


def _histograms(comparison):
    figures = []
    y = take(comparison.y, comparison.test[0])
    y = [_plain(label) if isinstance(label, str) else label for label in y]
    for name, scores in comparison.scores.items():

        def draw(pyplot, scores=scores[0], threshold=comparison.thresholds[name][0]):
            figure, ax = pyplot.subplots(figsize=(4.2, 2.7), layout="constrained")
            ScoreHistogramDisplay.from_predictions(
                scores, y, threshold=threshold, density=True, ax=ax
            )
            ax.legend(fontsize="x-small")
            ax.locator_params(axis="x", nbins=5)  # long numbers would meet
            return figure

        if not np.isfinite(scores[0]).any():
            continue
        alt = f"Histogram of the scores of {name}, by label, with its threshold"
        caption = f"<figcaption>{_text(name)}</figcaption>"
        figures.append(f"<figure>{_picture(draw, alt)}{caption}</figure>")
    return f'<h2>Scores</h2><div class="histograms">{"".join(figures)}</div>'


def _all_examples(comparison, rows):
    """Return the worst misses and false alarms of each detector, the best one unfolded."""
    if len(getattr(comparison.X, "shape", ())) == 2:
        return ""  # rows are no pictures
    blocks = []
    for row in rows:
        examples = comparison.examples.get(row["detector"])
        if examples is None or not len(examples.misses):
            continue
        name = row["detector"]
        is_open = " open" if name == comparison.best else ""
        blocks.append(
            f"<details{is_open}><summary>{_text(name)}</summary>"
            f"<h3>Worst misses: anomalies with the most normal scores</h3>"
            f"{_examples(comparison, name, examples.misses, comparison.masks)}"
            f"<h3>Worst false alarms: normal images with the most anomalous scores</h3>"
            f"{_examples(comparison, name, examples.false_alarms, None)}</details>"
        )
    if not blocks:
        return ""
    return (
        "<h2>Worst misses and false alarms</h2>"
        '<p class="soft">Where a detector has heat maps: the image, its heat map, in red '
        "what is above the threshold of the maps, and the mask of the defect where there "
        "is one. Maps of misses share one color scale, and those of false alarms another. "
        f"The numbers are scores, lower for anomalies.</p>{''.join(blocks)}"
    )


def _examples(comparison, name, chosen, masks):
    """Return figures of some images, the heat maps of which share a scale."""
    masks = None if masks is None else [masks[index] for index in chosen]
    if masks is not None and any(mask is None for mask in masks):
        masks = None  # an empty one would say that there is no defect
    examples, test = comparison.examples[name], comparison.test[0]
    scores = dict(zip(test.tolist(), comparison.scores[name][0].tolist(), strict=True))
    labels = take(comparison.y, chosen)
    pictures = _example_pictures(comparison.X, examples, chosen, masks)
    figures = []
    for index, label, picture in zip(chosen.tolist(), labels, pictures, strict=True):
        shown = _item_name(comparison.X, index)
        kind = "" if not isinstance(label, str) or label == "good" else f", {label}"
        text = f"{shown}{kind}: {scores[index]:.4g}"
        figures.append(
            f'<figure><img src="{picture}" alt="{_text(text)}" loading="lazy">'
            f"<figcaption>{_text(text)}</figcaption></figure>"
        )
    return f'<div class="examples">{"".join(figures)}</div>'


class _MapsInFigures(AnomalyMapDisplay):
    """Heat maps with one color scale, which are drawn in a figure each."""

    def _draw_colorbar(self, axes):
        pass


def _example_pictures(X, examples, chosen, masks):
    """Return a picture of each image, as the source of an ``img``."""
    pyplot = load_pyplot("The page of a comparison")
    X = take(X, chosen)
    maps = [examples.maps.get(index) for index in chosen.tolist()]
    has_maps = all(heat is not None for heat in maps)
    n_columns = 3 + (masks is not None) if has_maps else 1
    with pyplot.style.context(_STYLES["light"]):
        figures = [_bare_axes(pyplot, n_columns) for _ in chosen]
        axes = [ax for _, row in figures for ax in row]
        if has_maps:
            display = _MapsInFigures.from_predictions(
                X, maps, masks=masks, threshold=examples.pixel_threshold, ax=axes
            )
            pictures = display.pictures
        else:
            pictures = list(read_pictures(X))
            for ax, picture in zip(axes, pictures, strict=True):
                show_picture(ax, picture)
        return [
            _jpeg(pyplot, figure, row, picture.shape)
            for (figure, row), picture in zip(figures, pictures, strict=True)
        ]


def _bare_axes(pyplot, n_columns):
    figure, axes = pyplot.subplots(
        1, n_columns, squeeze=False, gridspec_kw={"wspace": 0.02}
    )
    figure.subplots_adjust(left=0, right=1, top=1, bottom=0)
    return figure, axes[0]


def _jpeg(pyplot, figure, axes, shape):
    """Return a figure as the source of an ``img``, its cells in the shape of the image."""
    height = _CELL * np.clip(shape[0] / shape[1], 0.2, 5)
    figure.set_size_inches(_CELL * len(axes), height)
    for ax in axes:
        ax.set_title("")
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", dpi=_DPI, pil_kwargs={"quality": 80})
    pyplot.close(figure)
    return _data_uri("image/jpeg", file)


def _picture(draw, alt):
    """Return a figure in light and dark colors, of which the browser takes one."""
    pyplot = load_pyplot("The page of a comparison")
    sources = {}
    for scheme, styles in _STYLES.items():
        # Texts as texts, which are a tenth of the size of outlines.
        with pyplot.style.context([*styles, {"svg.fonttype": "none"}]):
            figure = draw(pyplot)
            file = io.BytesIO()
            metadata = {"Date": None, "Creator": None}
            figure.savefig(file, format="svg", transparent=True, metadata=metadata)
            pyplot.close(figure)
            sources[scheme] = _data_uri("image/svg+xml", file)
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{sources["dark"]}">'
        f'<img src="{sources["light"]}" alt="{_text(alt)}"></picture>'
    )


def _data_uri(kind, file):
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _run(comparison, detectors, command, versions):
    """Return how the comparison was run, without names of machines, users and folders."""
    parts = [] if command is None else [f"<pre>{_text(command)}</pre>"]
    machine = f"{platform.system()} on {platform.machine()}, {os.cpu_count()} processors"
    parts.append(f"<p>{_text(machine)}.</p>")
    if versions:
        shown = ", ".join(f"{name} {version}" for name, version in versions.items())
        parts.append(f'<p class="soft">{_text(shown)}</p>')
    for name, detector in detectors.items():
        notes = "".join(
            f"<li>{_text(_without_folders(note))}</li>"
            for note in comparison.warnings.get(name, [])
        )
        notes = f"<p>Warnings:</p><ul>{notes}</ul>" if notes else ""
        parts.append(
            f"<details><summary>{_text(name)}</summary>"
            f"<pre>{_text(_parameters(detector))}</pre>{notes}</details>"
        )
    return "".join(parts)


def _parameters(detector):
    """Return the representation of a detector, with the names of files alone."""
    detector = clone(detector)
    files = {
        name: os.path.basename(os.fsdecode(value))
        for name, value in detector.get_params().items()
        if isinstance(value, str | os.PathLike) and os.path.isabs(value)
    }
    return _without_folders(repr(detector.set_params(**files)))


def _rows(table):
    columns = [list(table[name]) for name in table]
    return [dict(zip(table, row, strict=True)) for row in zip(*columns, strict=True)]


def _metric_columns(row):
    """Return the names of the columns of metrics, without the ends of intervals."""
    return [name for name in row if name.removeprefix("synthetic_") in _METRICS]


def _heading(name):
    plain = name.removeprefix("synthetic_")
    return (_METRICS | _COSTS)[plain] + ("*" if plain != name else "")


def _th(name):
    return f'<th scope="col">{_heading(name)}</th>'


def _cell(row, name):
    """Return a number, and the interval below it."""
    value = row[name]
    if np.isnan(value):
        return "–"  # noqa: RUF001
    if name in _COSTS:
        return f"{value:.1f}" if value < 10 else f"{value:.0f}"
    if name == "p_value":
        return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"
    low, high = row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan)
    if np.isnan(low):
        return f"{value:.3f}"
    return f"{value:.3f} <small>[{low:.3f}, {high:.3f}]</small>"


def _item_name(X, index):
    """Return the last two parts of the path of an image, or its place."""
    item = take(X, np.array([index]))[0] if not hasattr(X, "iloc") else X.iloc[index]
    if isinstance(item, ImageFile) and isinstance(item, str | os.PathLike):
        parts = re.split(r"[/\\]", os.fsdecode(item))
        return "/".join(parts[-2:])
    return f"image {index}"


def _without_folders(text):
    """Return a text in which paths begin with their last part."""
    return re.sub(r"(?<![\w.<:/\\])(?:[A-Za-z]:)?[/\\](?:[^/\\\s'\"]+[/\\])+", "", text)


def _plain(name):
    """Return a name for matplotlib: $ is no formula, and _ at its start hides nothing."""
    name = "".join(c if c.isprintable() else "?" for c in name).replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def _text(text):
    """Return a text as HTML; what is not printable is written as in Python."""
    shown = (c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(text))
    return html.escape("".join(shown))
