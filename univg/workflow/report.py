"""What a finished benchmark is read from: figures of every image, paired comparisons, plots, the worst cases."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np

from univg import __version__
from univg.errors import InputError
from univg.io import write_image
from univg.io.write import write_bytes_atomic
from univg.overlay import overlay_agreement, overlay_mask

WORST = 8
_MADE_BY = f"UniVG {__version__}"  # kept in pictures, so that they are known to be made here
_COLUMNS = ("split", "name", "dice", "cldice", "iou", "nsd", "auc", "sensitivity", "specificity", "fov_dice")


def write_image_table(result: Mapping, path: str | Path) -> None:
    """A CSV with one row for each test image of each split."""
    text = io.StringIO()
    writer = csv.writer(text)
    columns = [c for c in _COLUMNS if c in ("split", "name") or any(c in row for _, row in _rows(result))]
    writer.writerow(columns)
    for split, row in _rows(result):
        writer.writerow([split if c == "split" else row.get(c, "") for c in columns])
    write_bytes_atomic(path, text.getvalue().encode())


@dataclass(frozen=True)
class Comparison:
    """Two presets on the same images (Wilcoxon signed-rank test, two-sided).

    Attributes
    ----------
    count : int
        Images that both were tested on, over all splits.
    mean_difference, median_difference : float
        Of the second minus the first, in points of 100.
    low, high : float
        95 % bootstrap interval of the mean difference over images.
    p_value : float
        NaN where all differences are zero.
    wins : int
        Images on which the second is better.
    """

    count: int
    mean_difference: float
    median_difference: float
    low: float
    high: float
    p_value: float
    wins: int


def compare_results(first: Mapping, second: Mapping, *, figure: str = "dice") -> Comparison:
    """Compare two results of `univg.workflow.benchmark.run_benchmark`, image by image.

    Images of different splits are not independent of each other where they are the same; the p-value is a guide.

    Raises
    ------
    InputError
        If they share no image of a split, or were trained on different images.
    """
    pairs = []
    known = splits_by_seed(first)
    for seed, split in splits_by_seed(second).items():
        other = known.get(seed)
        if other is None:
            continue
        refuse_other_training(other, split["train"])
        before = {row["name"]: row[figure] for row in other["images"]}
        pairs += [(before[row["name"]], row[figure]) for row in split["images"] if row["name"] in before]
    if not pairs:
        raise InputError("The two results have no test image in common", fix="Measure the same splits.")
    differences = 100 * np.array([after - before for before, after in pairs])
    rng = np.random.default_rng(0)
    means = rng.choice(differences, (2000, len(differences))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Comparison(
        len(differences),
        float(differences.mean()),
        float(np.median(differences)),
        float(low),
        float(high),
        _wilcoxon(differences),
        int((differences > 0).sum()),
    )


def splits_by_seed(result: Mapping) -> dict[int, Mapping]:
    """The splits of a result; `InputError` where one lacks what a comparison needs."""
    try:
        for split in result["splits"]:
            list(split["train"]), [(row["name"], row["dice"]) for row in split["images"]]
        return {int(split["seed"]): split for split in result["splits"]}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("These are no results of a benchmark", fix="Name a file that --json wrote.") from error


def refuse_other_training(split: Mapping, names: Sequence[str]) -> None:
    """Raise `InputError` unless `split` was trained on the images called `names`."""
    if list(split["train"]) != list(names):
        raise InputError(f"Split {split['seed']} trained on other images in the two results")


def _wilcoxon(differences: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences).pvalue) if differences.any() else float("nan")


def worst_cases(result: Mapping, count: int = WORST) -> list[tuple[int, str, float]]:
    """The test images with the lowest Dice: split, name and Dice, the worst first."""
    rows = sorted(((row["dice"], split, row["name"]) for split, row in _rows(result)), key=lambda row: row[0])
    return [(split, name, dice) for dice, split, name in rows[:count]]


def draw_worst_cases(cases: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], path: str | Path) -> None:
    """A sheet of image and agreement between prediction and reference, one case a column.

    Parameters
    ----------
    cases : sequence of (caption, image, prediction, reference)
    path : path-like
    """
    side, cells = 300, []
    for caption, image, prediction, reference in cases:
        shown = overlay_mask(image, np.zeros(prediction.shape, bool))
        agreement = overlay_agreement(np.zeros_like(shown), prediction, reference, opacity=1.0)
        column = np.vstack([cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in (shown, agreement)])
        banner = np.full((26, side, 3), 255, np.uint8)
        cv2.putText(banner, caption[:38], (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        cells.append(np.vstack([banner, column]))
    rows = [np.hstack(cells[i : i + 4]) for i in range(0, len(cells), 4)]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    write_image(path, np.vstack(padded), provenance={"made_by": _MADE_BY})


def plot_curve(
    points: Mapping[str, Sequence[tuple[float, float, float]]],
    path: str | Path,
    *,
    label: str,
    logarithmic: bool = False,
) -> None:
    """Dice against a number (shots, pairs), one curve a name, with the spread over splits.

    Parameters
    ----------
    points : mapping of str to sequence of (x, mean, standard deviation), in percent
    path : path-like
        PNG or SVG.
    label : str
        Of the horizontal axis.
    logarithmic : bool
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for (name, curve), colour in zip(points.items(), cycle(("#0072b2", "#d55e00", "#009e73", "#cc79a7")), strict=False):
        x, mean, spread = (np.array(values, float) for values in zip(*sorted(curve), strict=True))
        axis.errorbar(x, mean, np.nan_to_num(spread), marker="o", capsize=3, color=colour, label=name)
    if logarithmic:
        axis.set_xscale("symlog", linthresh=1)
    axis.set_xlabel(label)
    axis.set_ylabel("Dice, % (mean over test images, SD over splits)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    buffer = io.BytesIO()
    kind = Path(path).suffix[1:].lower() or "png"
    figure.savefig(buffer, format=kind, dpi=150, metadata={"Software" if kind == "png" else "Creator": _MADE_BY})
    write_bytes_atomic(path, buffer.getvalue())


def _rows(result: Mapping):
    for split in result["splits"]:
        for row in split["images"]:
            yield split["seed"], row
