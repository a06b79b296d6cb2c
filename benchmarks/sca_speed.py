"""Measure how long R-SCA takes, how that grows, and how far it agrees with the paper's steps taken literally.

usage: OMP_NUM_THREADS=1 python benchmarks/sca_speed.py [DATA] [--quick] [--cap SECONDS] [--json FILE]

DATA is a folder of fundus images and masks (default: benchmark/drive in UNIVG_DATA; without it masks grown from a
preset stand in for real ones). Results go to benchmarks/results/sca_speed.json; --quick measures little and keeps
nothing unless --json says where. Literal growth that takes longer than the cap is given up and said to be longer.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from literal_sca import grow_literally
from scipy.spatial import cKDTree

from univg.geometry import VesselTree
from univg.io import match_pair_files, write_json_atomic
from univg.sca import (
    PRESETS,
    RECIPES,
    Preset,
    SCAConfig,
    find_centreline,
    generate_mask,
    grow_tree,
    sample_attraction_points,
    sample_roots,
    vessel_hub,
    warp_centrelines,
)
from univg.types import Modality
from univg.workflow.benchmark import describe_environment, load_resized

RESULTS = Path(__file__).parent / "results"
SIZE = 512  # pixels
MODALITY = Modality.FUNDUS
DONE, CAPPED, NOT_TRIED = "done", "capped", "not tried"

MaskSource = Callable[[int, int], list[np.ndarray]]  # how many, of which size


@dataclass(frozen=True)
class Effort:
    """How much is measured; `repeats` is trees a mask, a preset or a number of attractors."""

    masks: int = 40
    repeats: int = 5
    literal_masks: int = 3
    attractors: tuple[int, ...] = (1_000, 2_000, 4_000, 16_000, 64_000)
    sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    masks_a_size: int = 8
    trees_a_preset: int = 20
    cap: float = 300.0  # seconds of literal growth


QUICK = Effort(
    masks=3,
    repeats=2,
    literal_masks=1,
    attractors=(1_000, 2_000),
    sizes=(128, 256),
    masks_a_size=2,
    trees_a_preset=2,
    cap=10.0,
)


def mask_source(data: Path | None) -> MaskSource:
    """Real masks of a folder, from the first on, or generated ones where there is no folder."""
    if data is None:
        return lambda count, size: [
            generate_mask(MODALITY, shape=(size, size), rng=np.random.default_rng(seed)) for seed in range(count)
        ]
    files = match_pair_files(data / "images", data / "masks", None)
    return lambda count, size: [load_resized(file, size).mask for file in files[:count]]


def measure(work: Callable[[Any], object], inputs: Iterable) -> dict:
    """Time of `work` on each of `inputs`, in ms; process time leaves out what other programs took."""
    wall, process = [], []
    for case in inputs:
        started = time.perf_counter(), time.process_time()
        work(case)
        wall.append(1000 * (time.perf_counter() - started[0]))
        process.append(1000 * (time.process_time() - started[1]))
    return {
        "n": len(wall),
        "ms": float(np.median(wall)),
        "p95_ms": float(np.percentile(wall, 95)),
        "process_ms": float(np.median(process)),
        "p95_process_ms": float(np.percentile(process, 95)),
    }


def measure_conditioned(masks: Sequence[np.ndarray], repeats: int) -> dict:
    """Whole masks, from the real mask to the drawn one."""

    def draw(case: tuple[int, int]) -> None:
        generate_mask(MODALITY, mask=masks[case[0]], rng=np.random.default_rng(case))

    return measure(draw, [(i, repeat) for i in range(len(masks)) for repeat in range(repeats)])


def measure_unconditioned(preset: Preset, trees: int) -> dict:
    """Whole masks from a preset alone."""

    def draw(seed: int) -> None:
        generate_mask(preset.modality, preset=preset, shape=(SIZE, SIZE), rng=np.random.default_rng(seed))

    return {"preset": preset.name, **measure(draw, range(trees))}


def measure_sizes(source: MaskSource, sizes: Sequence[int], masks_a_size: int, repeats: int) -> dict:
    """Whole conditioned masks in frames of several sizes; lengths grow with the frame, so the trees are alike."""
    rows = [{"size": size, **measure_conditioned(source(masks_a_size, size), repeats)} for size in sizes]
    return {"rows": rows, "slope": log_slope([row["size"] for row in rows], [row["process_ms"] for row in rows])}


def measure_attractors(counts: Sequence[int], repeats: int, cap: float) -> dict:
    """Growth alone, without noise, from the middle of a frame towards attractors at random."""
    config = replace(SCAConfig(), direction_noise=0.0)
    root, shape = np.array([[SIZE / 2, SIZE / 2]]), (SIZE, SIZE)
    rows: list[dict] = []
    for count in counts:
        sets = [np.random.default_rng([count, seed]).uniform(0, SIZE, (count, 2)) for seed in range(repeats)]
        indexed = measure(lambda points: grow_indexed(points, root, shape, config), sets)
        if any(row["literal"]["state"] != DONE for row in rows):  # more attractors take longer still
            literal = {"state": NOT_TRIED}
        else:
            literal = time_literal(sets[0], root, shape, config, cap)[1]
        nodes = len(grow_indexed(sets[0], root, shape, config))
        rows.append({"attractors": count, "nodes": nodes, "indexed": indexed, "literal": literal})
    done = [row for row in rows if row["literal"]["state"] == DONE]
    return {
        "rows": rows,
        "indexed_slope": log_slope(counts, [row["indexed"]["process_ms"] for row in rows]),
        "literal_slope": log_slope(
            [row["attractors"] for row in done], [row["literal"]["process_seconds"] for row in done]
        ),
    }


def compare_growth(mask: np.ndarray, config: SCAConfig, repeats: int, cap: float) -> dict:
    """Growth alone, without noise, literal and indexed, towards the same attractors of a real mask."""
    config = replace(config, direction_noise=0.0, follow_distance=float("inf"))  # the paper has neither
    attractors, roots = conditioned_inputs(mask, config, np.random.default_rng(0))
    indexed = measure(lambda _: grow_indexed(attractors, roots, mask.shape, config), range(repeats))
    literal_tree, literal = time_literal(attractors, roots, mask.shape, config, cap)
    result = {"attractors": len(attractors), "roots": len(roots), "indexed": indexed, "literal": literal}
    if literal_tree is not None:
        indexed_tree = grow_indexed(attractors, roots, mask.shape, config)
        result["speedup"] = 1000 * literal["process_seconds"] / indexed["process_ms"]
        result["agreement"] = agreement(literal_tree, indexed_tree, attractors, config)
    return result


def grow_indexed(attractors: np.ndarray, roots: np.ndarray, shape: tuple[int, int], config: SCAConfig) -> VesselTree:
    return grow_tree(attractors, roots, shape, config=config, rng=np.random.default_rng(0))


def time_literal(
    attractors: np.ndarray, roots: np.ndarray, shape: tuple[int, int], config: SCAConfig, cap: float
) -> tuple[VesselTree | None, dict]:
    """The tree, None where the cap was reached, and its time in seconds."""
    started = time.perf_counter(), time.process_time()
    try:
        tree = grow_literally(
            attractors,
            roots,
            shape,
            attraction_distance=config.attraction_distance,
            kill_distance=config.kill_distance,
            segment_length=config.segment_length,
            max_nodes=config.max_nodes,
            max_iterations=config.max_iterations,
            deadline=started[0] + cap,
        )
    except TimeoutError:
        return None, {"state": CAPPED}
    wall, process = time.perf_counter() - started[0], time.process_time() - started[1]
    return tree, {"state": DONE, "seconds": wall, "process_seconds": process}


def conditioned_inputs(mask: np.ndarray, config: SCAConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Attractors and roots that `generate_tree` takes from a fundus mask of 512 pixels for a single forest."""
    hub = vessel_hub(mask)
    (line,) = warp_centrelines([find_centreline(mask)], config=config, rng=rng)
    return sample_attraction_points(line, mask.shape, config=config, rng=rng)[0], sample_roots(line, hub=hub)


def agreement(literal: VesselTree, indexed: VesselTree, attractors: np.ndarray, config: SCAConfig) -> dict:
    """How alike two trees from the same attractors are.

    Small differences move every later node, so nodes are also counted that lie within a segment of the other tree.
    """
    to_indexed = cKDTree(indexed.positions).query(literal.positions)[0]
    to_literal = cKDTree(literal.positions).query(indexed.positions)[0]
    return {
        "same_nodes": same_nodes(literal, indexed),
        "literal_nodes": len(literal),
        "indexed_nodes": len(indexed),
        "literal_length": float(literal.step_lengths.sum()),
        "indexed_length": float(indexed.step_lengths.sum()),
        "literal_nodes_near": float((to_indexed <= config.segment_length).mean()),
        "indexed_nodes_near": float((to_literal <= config.segment_length).mean()),
        "literal_reached": _share_reached(literal, attractors, config),
        "indexed_reached": _share_reached(indexed, attractors, config),
    }


def same_nodes(first: VesselTree, second: VesselTree, tolerance: float = 0.05) -> int:
    """How many nodes, from the first on, have the same place (to `tolerance` pixels) and parent in both trees."""
    n = min(len(first), len(second))
    near = np.linalg.norm(first.positions[:n] - second.positions[:n], axis=1) <= tolerance
    same = near & (first.parents[:n] == second.parents[:n])
    return n if same.all() else int(np.argmin(same))


def log_slope(sizes: Sequence[float], times: Sequence[float]) -> float | None:
    """Exponent p of time ~ size^p by least squares in logarithms; None for fewer than two points."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0]) if len(sizes) > 1 else None


def run(data: Path | None, effort: Effort) -> dict:
    source = mask_source(data)
    masks = source(effort.masks, SIZE)
    generate_mask(MODALITY, mask=masks[0], rng=np.random.default_rng(0))  # loads what is loaded on first use
    return {
        "masks": "generated" if data is None else data.name,
        "size": SIZE,
        "threads": 1,
        "cap_seconds": effort.cap,
        "conditioned": measure_conditioned(masks, effort.repeats),
        "unconditioned": [measure_unconditioned(preset, effort.trees_a_preset) for preset in PRESETS.values()],
        "sizes": measure_sizes(source, effort.sizes, effort.masks_a_size, effort.repeats),
        "growth": {
            name: [compare_growth(mask, config, effort.repeats, effort.cap) for mask in masks[: effort.literal_masks]]
            for name, config in RECIPES.items()
        },
        "attractors": measure_attractors(effort.attractors, effort.repeats, effort.cap),
        "environment": describe_environment(),
    }


def table(result: dict) -> str:
    """Markdown; times are process time unless they are called wall."""
    sizes, attractors = result["sizes"], result["attractors"]
    lines = [
        f"Whole masks, one thread, {result['size']} × {result['size']} unless said otherwise ({result['masks']}):",
        "",
        "| mask | trees | median ms | 95 % ms | wall median ms | wall 95 % ms |",
        "|---|---|---|---|---|---|",
        _time_row("conditioned", result["conditioned"]),
        *(_time_row(f"conditioned, {row['size']} × {row['size']}", row) for row in sizes["rows"]),
        *(_time_row(f"unconditioned, {row['preset']}", row) for row in result["unconditioned"]),
        "",
        f"Time of a conditioned mask grows as side^{_number(sizes['slope'])}.",
        "",
        "Growth alone, towards the attractors of a mask (literal / indexed; near: within a segment of the other tree):",
        "",
        "| recipe | attractors | literal s | indexed ms | times faster | nodes | near % | attractors reached % |",
        "|---|---|---|---|---|---|---|---|",
        *(_growth_row(name, row, result) for name, rows in result["growth"].items() for row in rows),
        "",
        "Growth alone, towards attractors at random:",
        "",
        "| attractors | nodes | literal s | indexed ms |",
        "|---|---|---|---|",
        *(
            f"| {row['attractors']} | {row['nodes']} | {_literal_time(row['literal'], result)} "
            f"| {row['indexed']['process_ms']:.0f} |"
            for row in attractors["rows"]
        ),
        "",
        f"Time grows as attractors^{_number(attractors['literal_slope'])} (literal), "
        f"attractors^{_number(attractors['indexed_slope'])} (indexed).",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true", help="few masks, small sizes; for a first look")
    parser.add_argument("--cap", type=float, help="seconds after which literal growth is given up")
    parser.add_argument("--json", type=Path, help="file of the results")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    data = args.data
    if data is None and os.environ.get("UNIVG_DATA"):
        data = Path(os.environ["UNIVG_DATA"]) / "benchmark" / "drive"
    effort = QUICK if args.quick else Effort()
    file = args.json or (None if args.quick else RESULTS / "sca_speed.json")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    result = run(data, effort if args.cap is None else replace(effort, cap=args.cap))
    if file is not None:
        write_json_atomic(file, result)
    print(table(result))


def _share_reached(tree: VesselTree, attractors: np.ndarray, config: SCAConfig) -> float:
    return float((cKDTree(tree.positions).query(attractors)[0] <= config.kill_distance).mean())


def _time_row(name: str, row: dict) -> str:
    return (
        f"| {name} | {row['n']} | {row['process_ms']:.0f} | {row['p95_process_ms']:.0f} "
        f"| {row['ms']:.0f} | {row['p95_ms']:.0f} |"
    )


def _growth_row(name: str, row: dict, result: dict) -> str:
    found = row.get("agreement")
    pairs = ["-"] * 3
    if found is not None:
        pairs = [
            f"{found['literal_nodes']} / {found['indexed_nodes']}",
            f"{100 * found['literal_nodes_near']:.0f} / {100 * found['indexed_nodes_near']:.0f}",
            f"{100 * found['literal_reached']:.1f} / {100 * found['indexed_reached']:.1f}",
        ]
    times = [_literal_time(row["literal"], result), f"{row['indexed']['process_ms']:.0f}"]
    return f"| {' | '.join([name, str(row['attractors']), *times, _number(row.get('speedup'), 0), *pairs])} |"


def _literal_time(literal: dict, result: dict) -> str:
    if literal["state"] == DONE:
        return f"{literal['process_seconds']:.1f}"
    return f"more than {result['cap_seconds']:g}" if literal["state"] == CAPPED else NOT_TRIED


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
