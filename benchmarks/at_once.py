"""Measure many splits at once, each in a process of its own: a GPU is left idle by one small network.

usage: python benchmarks/at_once.py [DATA] --results DIR [--sets NAME ...] [--presets NAME ...] [--rows NAME ...]
                                    [--splits N] [--pairs N] [--jobs N] [--minutes M] [--steps N]
                                    [--synthetic-until F] [--start prior|random] [--threads N]

Presets are those of few_shot.py, rows those of `univg benchmark --ablation`, with --pairs synthetic pairs. Splits go to
files in DIR/splits; those of a set and preset or row are joined in DIR/<set>-<preset>.json, where `few_shot.py --table
--results DIR` finds them; what is there is not run again. After --minutes nothing new is begun, and what runs is ended.
Times of trainings that share a device say nothing about one alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

# Libraries ask for a GPU when they are imported; asked the usual way, no process forked afterwards may use it.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import cv2
import torch
from few_shot import PRESETS, RESULTS, SETS

from univg.commands.benchmark import engines_of_row
from univg.io import read_json, write_json_atomic
from univg.workflow.ablation import ROWS, PairMaker, preset_of_row
from univg.workflow.benchmark import BenchmarkConfig, join_splits, run_benchmark
from univg.workflow.presets import preset_named


@dataclass(frozen=True)
class Task:
    """One split of one set, of a preset or of a row of the ablation."""

    data: str
    name: str
    split: int

    @property
    def part(self) -> str:
        return f"{self.data}-{self.name.replace(' ', '-')}-{self.split}"


def run(task: Task, folder: Path, data: Path, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    make, engines = None, ""
    if task.name in args.presets:
        preset = preset_named(task.name)
    else:
        preset = preset_of_row(preset_named("standard"), task.name, args.pairs)
        # Rows of a split share its engines where one follows the other.
        shared = folder / "engines" / f"{task.data}-{task.split}" if args.jobs == 1 else None
        make, engines = partial(PairMaker(args.pairs, folder=shared), task.name), engines_of_row(task.name)
    if args.steps:
        preset = preset.with_steps(args.steps)
    if args.synthetic_until is not None:
        preset = replace(preset, segmentation=replace(preset.segmentation, synthetic_until=args.synthetic_until))
    if args.start:
        preset = replace(preset, segmentation=replace(preset.segmentation, start=args.start))
    config = BenchmarkConfig(SETS[task.data], preset, splits=1, seed=task.split, engines_sha256=engines)
    run_benchmark(data / task.data, config=config, json_file=folder / f"{task.part}.json", synthetic=make)


def run_all(tasks: list[Task], folder: Path, data: Path, args: argparse.Namespace) -> None:
    """Each in a process forked from this one, which has imported everything and computed nothing."""
    started, running = time.monotonic(), {}
    end = started + 60 * args.minutes
    while tasks or running:
        while tasks and len(running) < args.jobs and time.monotonic() < end:
            task = tasks.pop(0)
            child = os.fork()
            if not child:
                os._exit(_run_logged(task, folder, data, args))
            running[child] = task, time.monotonic()
        if time.monotonic() > end:
            for child in running:
                os.kill(child, 9)
            left = [task.part for task, _ in running.values()] + [task.part for task in tasks]
            print(f"out of time; left: {' '.join(left)}", flush=True)
            return
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            task, begun = running.pop(child)
            now = time.monotonic()
            print(f"{now - started:.0f} s: {task.part} took {now - begun:.0f} s, exit {status >> 8}", flush=True)
        else:
            time.sleep(0.2)


def _run_logged(task: Task, folder: Path, data: Path, args: argparse.Namespace) -> int:
    with (folder / f"{task.part}.log").open("w") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
        try:
            run(task, folder, data, args)
        except BaseException:
            traceback.print_exc()
            return 1
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--presets", nargs="*", default=[], choices=PRESETS)
    parser.add_argument("--rows", nargs="*", default=[], choices=list(ROWS))
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=max((os.cpu_count() or 1) - 2, 1))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--steps", type=int, help="train for so many steps instead of the preset's")
    parser.add_argument("--synthetic-until", type=float, help="the share of the steps that pairs take part in")
    parser.add_argument("--start", choices=("prior", "random"), help="what the segmenter starts from")
    args = parser.parse_args()
    if args.results.resolve() == RESULTS.resolve():
        parser.error("--results must not be the folder of the published results")
    data = args.data or Path(os.environ["UNIVG_DATA"]) / "benchmark"
    folder = args.results / "splits"
    folder.mkdir(parents=True, exist_ok=True)
    every = [Task(*chosen) for chosen in product(args.sets, [*args.presets, *args.rows], range(args.splits))]
    every.sort(key=lambda task: (task.split, args.sets.index(task.data)))
    run_all([task for task in every if not (folder / f"{task.part}.json").exists()], folder, data, args)
    for name in dict.fromkeys((task.data, task.name) for task in every):
        parts = [folder / f"{task.part}.json" for task in every if (task.data, task.name) == name]
        done = [read_json(part) for part in parts if part.exists()]
        if done:
            joined = join_splits(done)
            write_json_atomic(args.results / f"{name[0]}-{name[1].replace(' ', '-')}.json", joined)
            mean = joined["mean"]
            print(f"{name[0]} {name[1]}, {len(done)} splits: {100 * mean['dice']:.2f} {100 * mean['cldice']:.2f}")


if __name__ == "__main__":
    main()
