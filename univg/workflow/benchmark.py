"""The paper's few-shot protocol (section 4.1): N random labelled images train, all others test, at 512 x 512."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock, Timeout

from univg import __version__
from univg.errors import InputError
from univg.geometry import resize_mask
from univg.io import (
    match_pair_files,
    read_image,
    read_json,
    read_mask,
    refuse_synthetic,
    sha256_file,
    write_json_atomic,
    write_mask,
)
from univg.io.pairs import PairFiles
from univg.metrics import SegmentationMetrics, evaluate
from univg.progress import OnProgress, ProgressEvent, ShouldStop, ignore_progress, never_stop
from univg.segmentation import SegmentationConfig, Segmenter, segment
from univg.segmentation.prior import prior_sha256
from univg.types import ImageMaskPair, Modality, SupportSet
from univg.workflow.machine import forget_peak_memory, peak_memory_mb
from univg.workflow.pipeline import run_pipeline
from univg.workflow.presets import Preset

# Gets the annotated pairs of a split and its seed; returns the synthetic pairs to train with.
MakePairs = Callable[[SupportSet, int], Sequence[ImageMaskPair]]
_FIGURES = ("dice", "cldice", "iou", "nsd", "auc", "sensitivity", "specificity", "betti0_error", "betti1_error")
_SECONDS_BETWEEN_RECORDS = 5.0
_WORK_SUFFIX = ".work"


@dataclass(frozen=True)
class BenchmarkConfig:
    """What is measured; results of another configuration are not mixed in."""

    modality: Modality
    preset: Preset
    shots: int = 5
    splits: int = 3
    seed: int = 0
    size: int = 512
    device: str = "auto"
    test_time_augmentation: bool = True
    engines_sha256: str = ""  # of the weights that its pairs are drawn with, if any

    def __post_init__(self) -> None:
        for name, least in (("shots", 1), ("splits", 1), ("size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def key(self) -> dict:
        """What must agree for finished splits to be kept."""
        prior = {"prior_sha256": prior_sha256()} if self.preset.segmentation.start == "prior" else {}
        engines = {"engines_sha256": self.engines_sha256} if self.engines_sha256 else {}
        return {
            "preset": self.preset.name,
            **prior,
            **engines,
            "modality": str(self.modality),
            "shots": self.shots,
            "size": self.size,
            "pairs": self.preset.pairs,
            "test_time_augmentation": self.test_time_augmentation,
            "segmentation": self.preset.segmentation.to_json(),
        }


def run_benchmark(
    data: str | Path,
    *,
    config: BenchmarkConfig,
    json_file: str | Path | None = None,
    synthetic: MakePairs | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict:
    """Adapt and test on several random splits of `data`.

    Parameters
    ----------
    data : path-like
        Folder with ``images/``, ``masks/`` and optionally ``fov/``, of equal stems.
    config : BenchmarkConfig
    json_file : path-like, optional
        Where results are kept after each split. Finished splits found there are not run again, and an interrupted one
        goes on from its checkpoint, in a folder beside the file, which also gets the masks that were found. A second
        run at the same time is refused.
    synthetic : callable, optional
        Makes the synthetic pairs of a split; by default the preset does.
    on_progress, should_stop : callable

    Returns
    -------
    dict
        ``{"dataset", "preset", "splits": [...], "mean": {...}, "environment": {...}}``; Dice and the like in [0, 1].
        ``environment`` is that of the first split; each has its own. ``peak_rss_mb`` of a split is its own under
        Linux, and elsewhere the most that the process has had so far.
    """
    data = Path(data)
    fov = data / "fov"
    files = match_pair_files(data / "images", data / "masks", fov if fov.is_dir() else None)
    refuse_synthetic(files)
    if len(files) <= config.shots:
        raise InputError(
            f"{config.shots} shots need more than {config.shots} annotated images, got {len(files)}", path=data
        )
    with _only_run_on(json_file):
        result = _open_result(data.name, data_sha256(files), config, json_file)
        finished = {split["seed"]: split for split in result["splits"]}
        for seed in range(config.seed, config.seed + config.splits):
            if seed not in finished:
                work = _work_folder(json_file, seed)
                finished[seed] = _run_split(files, config, seed, work, synthetic, on_progress, should_stop)
            result["splits"] = [finished[key] for key in sorted(finished)]
            result["mean"] = _mean_over_splits(result["splits"])
            if json_file is not None:
                write_json_atomic(json_file, result)
    return result


@contextmanager
def _only_run_on(json_file: str | Path | None) -> Iterator[None]:
    """Refuse a second run on the same results, which would write the splits that it has not seen out of them."""
    if json_file is None:
        yield
        return
    folder = Path(json_file).with_suffix(_WORK_SUFFIX)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            "Another run is writing these results", path=json_file, fix="Wait for it, or name another file."
        ) from None
    try:
        yield
    finally:
        lock.release()


def choose_training_files(files: Sequence[PairFiles], shots: int, seed: int) -> tuple[list[PairFiles], list[PairFiles]]:
    """The random split of `seed`: `shots` files that train and the others, each in order of name.

    The other eye of somebody whose eye trains (files called like 01L and 01R) is not among the others.

    Raises
    ------
    InputError
        If that leaves none to test.
    """
    chosen = set(np.random.default_rng(seed).permutation(len(files))[:shots].tolist())
    train = [f for i, f in enumerate(files) if i in chosen]
    seen = {_person(f.name) for f in train}
    test = [f for i, f in enumerate(files) if i not in chosen and _person(f.name) not in seen]
    if not test:
        raise InputError(
            f"With {shots} shots no image is left whose fellow eye does not train",
            fix="Use fewer shots or more images.",
        )
    return train, test


def _person(name: str) -> str:
    """`name` without the letter that tells left from right eyes, where a number precedes it."""
    return re.sub(r"(?<=\d)[-_ ]?(l|r|os|od|left|right)$", "", name, flags=re.IGNORECASE)


def load_resized(files: PairFiles, size: int) -> ImageMaskPair:
    """The pair at ``size`` x ``size`` pixels, proportions given up as in the paper."""

    def resized_mask(path: Path) -> np.ndarray:
        return resize_mask(read_mask(path, grey_threshold=0.5), (size, size))

    image = read_image(files.image)
    shrinks = size < max(image.shape[:2])
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    image = np.clip(image, 0, 255 if image.dtype == np.uint8 else 1)
    return ImageMaskPair(
        image, resized_mask(files.mask), files.name, fov=None if files.fov is None else resized_mask(files.fov)
    )


def _run_split(
    files: Sequence[PairFiles],
    config: BenchmarkConfig,
    seed: int,
    work: Path | None,
    synthetic: MakePairs | None,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> dict:
    train, test = choose_training_files(files, config.shots, seed)
    support = SupportSet(
        config.modality,
        tuple(load_resized(f, config.size) for f in train),
        sha256={f.name: sha256_file(f.image) for f in train},
    )
    forget_peak_memory()
    clock = _Stopwatch(None if work is None else work / "elapsed.json")

    def timed(event: ProgressEvent) -> None:
        clock.keep_now_and_then()
        on_progress(event)

    with clock:
        segmenter = run_pipeline(
            support,
            preset=config.preset,
            seed=seed,
            synthetic=None if synthetic is None else synthetic(support, seed),
            checkpoint_folder=work,
            device=config.device,
            on_progress=timed,
            should_stop=should_stop,
        )
    rows = []
    for done, file in enumerate(test):
        row, mask = _score(segmenter, load_resized(file, config.size), config)
        rows.append(row)
        if work is not None:
            write_mask(predictions_folder(work) / f"{file.name}.png", mask)
        on_progress(ProgressEvent("test", done + 1, len(test)))
    figures = {name: _mean_and_sd([row[name] for row in rows]) for name in (*_FIGURES, "fov_dice") if name in rows[0]}
    return {
        "seed": seed,
        "train": [f.name for f in train],
        "held_out": segmenter.card["held_out"],
        "held_out_figures": segmenter.card["held_out_figures"],
        **{name: mean for name, (mean, _) in figures.items()},
        **{f"{name}_sd": sd for name, (_, sd) in figures.items()},
        "adapt_seconds": clock.wall,
        "adapt_cpu_seconds": clock.cpu,
        "peak_rss_mb": peak_memory_mb(),
        "segment_ms": _segment_milliseconds(segmenter, support.pairs[0].image),
        "environment": describe_environment(),
        "images": rows,
    }


def predictions_folder(work: Path) -> Path:
    """Where the masks of a split's test images are, made if need be."""
    folder = work / "masks"
    folder.mkdir(exist_ok=True)
    return folder


def _score(segmenter: Segmenter, pair: ImageMaskPair, config: BenchmarkConfig) -> tuple[dict, np.ndarray]:
    found = segment(pair.image, segmenter, test_time_augmentation=config.test_time_augmentation)
    mask = found.probability >= 0.5  # the protocol's threshold
    metrics = evaluate(mask, pair.mask, probability=found.probability)
    row = {"name": pair.name, **{name: getattr(metrics, name) for name in _FIGURES}}
    if pair.fov is not None:
        row["fov_dice"] = _fov_metrics(mask, pair).dice
    return row, mask


def _fov_metrics(mask: np.ndarray, pair: ImageMaskPair) -> SegmentationMetrics:
    return evaluate(mask, pair.mask, fov=pair.fov)


def _segment_milliseconds(segmenter: Segmenter, image: np.ndarray, repeats: int = 7) -> float:
    """Median time of one image without test-time augmentation, after a warm-up."""
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        segment(image, segmenter)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times[2:]))


class _Stopwatch:
    """Wall and processor seconds of a block, added up over interrupted attempts, killed ones included."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.wall, self.cpu = 0.0, 0.0

    def __enter__(self) -> _Stopwatch:
        if self._file is not None and self._file.exists():
            earlier = read_json(self._file)
            self.wall, self.cpu = earlier["wall"], earlier["cpu"]
        self._since = (time.perf_counter(), time.process_time())
        return self

    def keep_now_and_then(self) -> None:
        """Write what has passed so far, unless that was done a moment ago."""
        if time.perf_counter() - self._since[0] >= _SECONDS_BETWEEN_RECORDS:
            self._keep()

    def __exit__(self, *error: object) -> None:
        self._keep()

    def _keep(self) -> None:
        now = (time.perf_counter(), time.process_time())
        self.wall += now[0] - self._since[0]
        self.cpu += now[1] - self._since[1]
        self._since = now
        if self._file is not None:
            write_json_atomic(self._file, {"wall": self.wall, "cpu": self.cpu})


def join_splits(results: Sequence[dict]) -> dict:
    """One result of those of single splits, which may have been measured at once or on several machines.

    Raises
    ------
    ValueError
        If they are of other data or settings, or share a split.
    """
    first, splits = results[0], [split for result in results for split in result["splits"]]
    for result in results:
        if (result["dataset"], result["config"]) != (first["dataset"], first["config"]):
            raise ValueError(f"results of {first['dataset']} and {result['dataset']} have other data or settings")
    sets = {result.get("data_sha256") for result in results}  # None of older results, which do not say
    if len(sets - {None}) > 1:
        raise ValueError(f"results are of other data, each in a folder called {first['dataset']}")
    if len({split["seed"] for split in splits}) < len(splits):
        raise ValueError("two of the results hold the same split")
    splits = _with_nan(sorted(splits, key=lambda split: split["seed"]))
    joined = {**first, "splits": splits, "mean": _mean_over_splits(splits)}
    return joined if None not in sets else {key: value for key, value in joined.items() if key != "data_sha256"}


def _with_nan(splits: Sequence[dict]) -> list[dict]:
    """Splits as they were before JSON, which has no NaN: the spread of one image is none."""
    return [{k: float("nan") if v is None and k != "held_out" else v for k, v in s.items()} for s in splits]


def data_sha256(files: Sequence[PairFiles]) -> str:
    """Of the names and contents of a set: other files may lie in a folder of the same name."""
    listed = [[f.name, *(sha256_file(p) for p in (f.image, f.mask, f.fov) if p is not None)] for f in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _open_result(dataset: str, sha256: str, config: BenchmarkConfig, json_file: str | Path | None) -> dict:
    new = {
        "dataset": dataset,
        "data_sha256": sha256,
        "preset": config.preset.name,
        "config": config.key(),
        "splits": [],
        "mean": {},
        "environment": describe_environment(),
    }
    if json_file is None or not Path(json_file).exists():
        return new
    old = read_json(json_file)
    if not isinstance(old, dict):
        raise InputError("This file holds no results of a benchmark", path=json_file, fix="Name another file.")
    if _with_defaults(old.get("config")) != new["config"] or old.get("dataset") != dataset:
        raise InputError(
            "This file holds results of another configuration",
            path=json_file,
            fix="Name another file, or move it away.",
        )
    if old.get("data_sha256", sha256) != sha256:  # older results do not say
        raise InputError(
            f"This file holds results of other images in a folder called {dataset!r}",
            path=json_file,
            fix="Name another file, or move it away.",
        )
    return {**old, "splits": _with_nan(old["splits"])}


def _with_defaults(key: object) -> object:
    """A stored `BenchmarkConfig.key`; settings that came later had their default."""
    try:
        return {**key, "segmentation": SegmentationConfig.from_json(key["segmentation"]).to_json()}
    except (KeyError, TypeError, ValueError):
        return None


def work_folder(json_file: str | Path, seed: int) -> Path:
    """Where a split keeps its checkpoint and the masks it found."""
    return Path(json_file).with_suffix(_WORK_SUFFIX) / f"split-{seed}"


def _work_folder(json_file: str | Path | None, seed: int) -> Path | None:
    if json_file is None:
        return None
    folder = work_folder(json_file, seed)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _mean_over_splits(splits: Sequence[dict]) -> dict:
    names = [name for name in (*_FIGURES, "fov_dice", "adapt_seconds", "segment_ms") if name in splits[0]]
    means = {}
    for name in names:
        mean, sd = _mean_and_sd([split[name] for split in splits])
        means[name], means[f"{name}_sd_over_splits"] = mean, sd
    return means


def _mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, ignoring undefined values; NaN where there is nothing to average."""
    known = np.asarray([v for v in values if np.isfinite(v)])
    if not len(known):
        return float("nan"), float("nan")
    return float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else float("nan")


def describe_environment() -> dict:
    """The machine and versions a figure was measured with; nothing that names a person or a host."""
    import torch

    return {
        "univg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
