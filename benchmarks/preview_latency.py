"""Time from a moved slider to the redrawn 512 x 512 preview, on the server: the handler that the page calls.

usage: python benchmarks/preview_latency.py [DATA] [--moves N] [--json FILE]

DATA is the folder benchmark in UNIVG_DATA by default. Every preset is measured, and trees along real masks of drive,
octa500_3m, dias and dca1. Run it with nothing beside it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from few_shot import SETS

from app.gradio_ui import tree_view, trees
from app.gradio_ui.state import Session
from univg.io import match_pair_files, write_json_atomic
from univg.sca import PRESETS
from univg.types import Modality
from univg.workflow.benchmark import choose_training_files, describe_environment, load_resized
from univg.workflow.project import Project

SIZE = 512
MOVED = ("attraction_distance", "tip_radius", "direction_noise")  # one that grows anew, one of calibre, one of noise


def measure(session: Session, moves: int) -> dict:
    """Milliseconds of `moves` slider events, after three that warm up."""
    studio = tree_view.studio_of(session)
    start = {name: getattr(studio.scene.config, name) for name in tree_view.SETTINGS}
    rng, times = np.random.default_rng(0), []
    for move in range(moves + 3):
        name = MOVED[move % len(MOVED)]
        values = {**start, name: start[name] * rng.uniform(0.8, 1.25)}
        started = time.perf_counter()
        trees.slide(session, False, *values.values())
        times.append(1000 * (time.perf_counter() - started))
    median, p95 = np.percentile(times[3:], [50, 95])
    return {"moves": moves, "median_ms": float(median), "p95_ms": float(p95)}


def project_of(folder: Path, modality: Modality, data: Path | None) -> Project:
    project = Project.create(folder, modality=modality)
    if data is not None:
        files = choose_training_files(match_pair_files(data / "images", data / "masks", None), 5, 0)[0]
        project.add_support_pair(load_resized(files[0], SIZE))
    return project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--moves", type=int, default=60)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    data = args.data or (Path(os.environ["UNIVG_DATA"]) / "benchmark" if os.environ.get("UNIVG_DATA") else None)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        cases = [(f"preset {name}", preset.modality, None, f"preset:{name}") for name, preset in PRESETS.items()]
        if data is not None:
            cases += [(f"along {name}", modality, data / name, None) for name, modality in SETS.items()]
        for number, (label, modality, source, choice) in enumerate(cases):
            session = Session(str(number), Path(folder) / f"session-{number}")
            session.open(project_of(Path(folder) / f"project-{number}", modality, source))
            if choice:
                trees.choose_source(session, choice)
            rows[label] = measure(session, args.moves)
            print(f"{label}: median {rows[label]['median_ms']:.0f} ms, 95 % {rows[label]['p95_ms']:.0f} ms", flush=True)
    if args.json:
        write_json_atomic(args.json, {"rows": rows, "environment": describe_environment()})


if __name__ == "__main__":
    main()
