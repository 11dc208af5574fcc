"""Plots of the tables in docs/results, for the pages of the reproduction."""

import csv
import re
from pathlib import Path

from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent.parent / "results"
# The colors of Okabe and Ito, which the color-blind tell apart; markers differ as well.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = "osD^vP"


def read_rows(name):
    """Return the rows of a table as dictionaries of text."""
    with (RESULTS / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_number(text, place=0):
    """Return a number of a cell such as "61.2 (61.9)" or "88.0 ± 0.4", NaN if none."""
    found = re.findall(r"-?\d+(?:\.\d+)?", text)
    return float(found[place]) if place < len(found) else float("nan")


def column(rows, key, place=0):
    """Return the numbers of one column."""
    return [read_number(row[key], place) for row in rows]


def dots(labels, series, *, xlabel, ax=None, title=None):
    """Draw a line of dots for each label, one for each of the series.

    Parameters
    ----------
    labels : list of str
        What stands at the left, from top to bottom.
    series : dict
        The name of each of the series, with a list of values for the labels, or a pair of
        lists, values and standard deviations. NaN draws nothing.
    xlabel : str
        What the values are.
    ax : matplotlib Axes, default=None
        Axes to draw on. None: those of a new figure, as high as the labels need.
    title : str, default=None
        Title of the axes.

    Returns
    -------
    ax : matplotlib Axes
        What is drawn on.
    """
    if ax is None:
        lines = max(label.count("\n") + 1 for label in labels)
        row = max(0.16 + 0.09 * len(series), 0.17 * lines + 0.1)
        size = (7, 1.3 + row * len(labels))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    step = 0.5 / max(len(series) - 1, 1)
    for index, (name, values) in enumerate(series.items()):
        values, spread = values if isinstance(values, tuple) else (values, None)
        places = [
            row + (index - (len(series) - 1) / 2) * step for row in range(len(labels))
        ]
        ax.errorbar(
            values, places, xerr=spread, label=name, capsize=2, elinewidth=1,
            fmt=MARKERS[index], color=COLORS[index], markersize=5,
        )  # fmt: skip
    ax.set(xlabel=xlabel, title=title, ylim=(len(labels) - 0.4, -0.6))
    ax.set_yticks(range(len(labels)), labels)
    for row in range(1, len(labels), 2):
        ax.axhspan(row - 0.5, row + 0.5, color="0.95", zorder=0)
    ax.grid(axis="x", alpha=0.4)
    ax.tick_params(axis="y", length=0)
    if len(series) > 1 and not ax.figure.legends:
        ncols = len(series) if sum(map(len, series)) < 50 else 2
        handles = ax.get_legend_handles_labels()
        ax.figure.legend(*handles, loc="outside upper center", ncols=ncols)
    return ax
