"""The loop of the napari plugin on real images: segment, correct, approve, retrain, and how good the model is then.

usage: python benchmarks/napari_loop.py DATA WORK [--modality fundus] [--preset preview|standard|tiny] [--rounds 5]
       [--shots 5] [--held-out 10] [--seed 0] [--json FILE]

DATA holds ``images`` and ``masks``, such as the folder drive of a benchmark. WORK is a folder for the project; called
again with it, the loop goes on where it was stopped. A plot of Dice and clDice over the rounds is written beside the
JSON.

Patients are drawn at random: `--shots` images start the project, annotated by their reference; the images of other
patients are kept from training and models are compared on them; the rest waits in the queue, the least certain first.
Each round opens the next image, has it segmented, corrects it as a person with the reference before their eyes would,
stroke by stroke through the plugin's own tools, approves it and retrains. The new model is always taken: to choose one
on the test images would flatter it. A real viewer is needed, on a screen or under Xvfb.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
from napari_frames import wait

from univg.io import match_pair_files, read_image, read_json, read_mask, write_image, write_json_atomic, write_mask
from univg.metrics import cldice, dice
from univg.types import ImageMaskPair, Modality
from univg.workflow.jobs import JobState
from univg.workflow.project import Project

PRESETS = {"preview": "preview", "standard": "standard", "tiny": "preview"}
TINY_SIDE = 96
MISSED_LENGTH = 10  # pixels of centreline from which a missed vessel is drawn with the snapping tool
SMALLEST_PATCH = 3  # pixels; what a person would not see is left


@dataclass(frozen=True)
class Source:
    """One image of the data set: its files and whom it shows."""

    name: str
    image: Path
    mask: Path
    patient: str


def sources_of(data: Path, work: Path, *, tiny: bool) -> list[Source]:
    """The pairs of `data`; reduced copies of them in `work` when `tiny`."""
    found = []
    for files in match_pair_files(data / "images", data / "masks", None):
        image, mask = files.image, files.mask
        if tiny:
            image, mask = (work / "small" / kind / f"{files.name}.png" for kind in ("images", "masks"))
            if not mask.exists():
                image.parent.mkdir(parents=True, exist_ok=True)
                mask.parent.mkdir(parents=True, exist_ok=True)
                write_image(
                    image, cv2.resize(read_image(files.image), (TINY_SIDE, TINY_SIDE), interpolation=cv2.INTER_AREA)
                )
                full = read_mask(files.mask, grey_threshold=0.5).astype(np.float32)
                write_mask(mask, cv2.resize(full, (TINY_SIDE, TINY_SIDE), interpolation=cv2.INTER_AREA) > 0.3)
        # 05L and 05R, or 05_left and 05_right, are two eyes of one person
        patient = re.sub(r"[ _.-]*(left|right|l|r)$", "", files.name, flags=re.IGNORECASE)
        found.append(Source(files.name, image, mask, patient))
    return found


def split_by_patient(sources: list[Source], *, shots: int, held_out: int, seed: int) -> tuple[list[Source], ...]:
    """Images that start the project, that are held out, and that wait in the queue."""
    patients = sorted({source.patient for source in sources})
    order = [patients[i] for i in np.random.default_rng(seed).permutation(len(patients))]
    groups: tuple[list[Source], ...] = ([], [], [])
    for patient in order:
        own = [source for source in sources if source.patient == patient]
        group = groups[0] if len(groups[0]) < shots else groups[1] if len(groups[1]) < held_out else groups[2]
        group.extend(own)
    return groups


def correct_by_reference(session, reference: np.ndarray) -> dict:
    """Correct the mask on screen stroke by stroke; returns the number of strokes of each kind.

    Missed vessels are drawn along with the snapping tool; patches that are then wrong by more than the outermost pixel
    of a wall, in which observers differ, are wiped or painted as with eraser and brush.
    """
    from skimage.morphology import skeletonize

    from app.napari_plugin import layers, tools
    from univg.geometry import local_radius

    strokes = {"snap": 0, "erase": 0, "paint": 0}
    ridges, radius = session.ridges, local_radius(reference)
    around = np.ones((3, 3), np.uint8)
    missed = skeletonize(reference) & ~cv2.dilate(session.mask().astype(np.uint8), around).astype(bool)
    count, label = cv2.connectedComponents(missed.astype(np.uint8), connectivity=8)
    for number in range(1, count):
        points = _in_order(np.argwhere(label == number))
        if len(points) < MISSED_LENGTH:
            continue
        width = 2 * float(np.median(radius[points[:, 0], points[:, 1]])) + 0.5
        session.correct(lambda mask, p=points, w=width: tools.snap_stroke(mask, ridges(), p, diameter=w))
        wait(lambda: session.busy == 0)
        strokes["snap"] += 1
    # One step of undo each, as a stroke of the layer's own eraser or brush.
    far = ~cv2.dilate(reference.astype(np.uint8), around).astype(bool)
    core = cv2.erode(reference.astype(np.uint8), around).astype(bool) | skeletonize(reference)
    for kind, wrong, seen, value in (
        ("erase", lambda mask: mask & ~reference, far, 0),
        ("paint", lambda mask: reference & ~mask, core, 1),
    ):
        count, label, stats, _ = cv2.connectedComponentsWithStats(
            wrong(session.mask()).astype(np.uint8), connectivity=8
        )
        catches_the_eye = np.zeros(count, bool)
        catches_the_eye[np.unique(label[seen])] = True
        for number in range(1, count):
            if catches_the_eye[number] and stats[number, cv2.CC_STAT_AREA] >= SMALLEST_PATCH:
                session.labels.data_setitem(np.nonzero(label == number), value)
                strokes[kind] += 1
    wait(0.6)  # the plugin sees it
    assert layers.mask_in(session.labels).any()
    return strokes


def _in_order(points: np.ndarray) -> np.ndarray:
    """Pixels of a piece of centreline along their way: from an end always to the nearest one left."""
    middle = points.mean(axis=0)
    left = list(map(tuple, points))
    path = [max(left, key=lambda point: (point[0] - middle[0]) ** 2 + (point[1] - middle[1]) ** 2)]
    left.remove(path[0])
    while left:
        near = min(left, key=lambda point: (point[0] - path[-1][0]) ** 2 + (point[1] - path[-1][1]) ** 2)
        if max(abs(near[0] - path[-1][0]), abs(near[1] - path[-1][1])) > 4:  # a side branch was left behind
            break
        path.append(near)
        left.remove(near)
    return np.array(path)


class Loop:
    """The project in `work` and what happened so far, written down after every step."""

    def __init__(self, args: argparse.Namespace, session, retrain) -> None:
        self.args, self.session, self.retrain = args, session, retrain
        self.file: Path = args.json
        tiny = args.preset == "tiny"
        self.sources = {source.name: source for source in sources_of(args.data, args.work, tiny=tiny)}
        split = split_by_patient(list(self.sources.values()), shots=args.shots, held_out=args.held_out, seed=args.seed)
        self.start, self.held_out, self.pool = split
        key = {name: getattr(args, name) for name in ("preset", "shots", "seed")}
        key |= {"dataset": args.data.name, "held_out": [source.name for source in self.held_out]}
        self.data = {**key, "start": [source.name for source in self.start], "rounds": []}
        if self.file.exists():
            old = read_json(self.file)
            if any(old.get(name) != value for name, value in key.items()):
                raise SystemExit(f"{self.file} holds results of other settings; name another file.")
            self.data = old
        folder = args.work / "project"
        if (folder / "project.json").exists():
            session.use_project(Project.open(folder))
        else:
            session.use_project(self._new_project(folder, TINY_SIDE if tiny else 512))
        retrain.effort.setCurrentIndex(retrain.effort.findData(PRESETS[args.preset]))

    def _new_project(self, folder: Path, side: int) -> Project:
        project = Project.create(folder, modality=Modality.parse(self.args.modality), working_size=side)
        for source in self.start:
            project.add_support_pair(ImageMaskPair(read_image(source.image), self.reference(source.name), source.name))
        return project

    def reference(self, name: str) -> np.ndarray:
        return read_mask(self.sources[name].mask, grey_threshold=0.5)

    def run(self) -> None:
        self._hold_out()
        self.session.add_images([source.image for source in self.pool])
        for source in self.pool:
            self.session.queue.set_patient(source.name, source.patient)
        for number in range(self.args.rounds + 1):
            self._round(number)
            last = self.data["rounds"][number]
            print(
                f"round {number}: {last['image'] or 'the annotated images alone'}, "
                f"Dice {last['dice']:.4f}, clDice {last['cldice']:.4f} on {len(self.held_out)} held-out images",
                flush=True,
            )

    def _hold_out(self) -> None:
        """The test images, annotated by their reference and approved, before anything trains."""
        known = {entry.name: entry for entry in self.session.queue.entries()}
        self.session.add_images([source.image for source in self.held_out])
        for source in self.held_out:
            if source.name in known and known[source.name].held_out and known[source.name].status == "approved":
                continue
            self.session.queue.set_patient(source.name, source.patient)
            self.session.queue.hold_out(source.name, True)
            self._open(source.name)
            reference = self.reference(source.name)
            self.session.correct(lambda _mask, reference=reference: reference)
            wait(lambda: self.session.busy == 0)
            self.session.approve()

    def _round(self, number: int) -> None:
        """Round 0 trains on the annotated images alone; each later one corrects one more image first."""
        rounds = self.data["rounds"]
        if len(rounds) <= number:
            rounds.append({"image": "", **({} if number == 0 else self._annotate())})
            self._write()
        this = rounds[number]
        if "dice" in this:
            return
        known = {entry.get("job") for entry in rounds if entry is not this}
        if self.retrain.job is None or self.retrain.job.id in known:
            self.retrain.start()
            wait(lambda: self.retrain.job is not None and self.retrain.job.id not in known)
        elif self.retrain.job.state in (JobState.CANCELLED, JobState.FAILED):  # this program was stopped meanwhile
            self.retrain.resume()
        this["job"] = self.retrain.job.id
        self._write()
        wait(lambda: self.retrain.job.state.finished, 24 * 3600)
        if self.retrain.job.state is not JobState.DONE:
            raise SystemExit(f"The training ended {self.retrain.job.state}: {self.retrain.job.error}")
        wait(lambda: self.retrain.scores is not None, 3600)
        scores = self.retrain.scores[1]
        assert sorted(score.image for score in scores) == sorted(source.name for source in self.held_out)
        this["version"] = self.retrain.job.result()["segmenter"]
        this["train_seconds"] = _seconds(self.retrain.job)
        for name in ("dice", "cldice"):
            values = [getattr(score, name) for score in scores]
            this[name], this[f"{name}_sd"] = float(np.mean(values)), float(np.std(values, ddof=1))
        this["images"] = {score.image: {"dice": score.dice, "cldice": score.cldice} for score in scores}
        self.retrain.decide(new=True)
        wait(lambda: self.session.busy == 0)
        self._write()

    def _annotate(self) -> dict:
        """Open the image that is worth most, correct and approve it."""
        wait(lambda: self.session.busy == 0 and not self.session._scoring.busy, 3600)
        name = self.session.queue.next_name()
        self._open(name)
        wait(lambda: self.session.open.found is not None)
        reference, found = self.reference(name), self.session.mask()
        started = time.perf_counter()
        strokes = correct_by_reference(self.session, reference)
        corrected = self.session.mask()
        self.session.approve()
        return {
            "image": name,
            "found_dice": dice(found, reference),
            "found_cldice": cldice(found, reference),
            "corrected_dice": dice(corrected, reference),
            "strokes": strokes,
            "correct_seconds": time.perf_counter() - started,
        }

    def _open(self, name: str) -> None:
        self.session.open_image(name)
        wait(lambda: self.session.open is not None and self.session.open.name == name and self.session.busy == 0)

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self.file, self.data)


def _seconds(job) -> float:
    """From the start to the end of a job's last attempt."""
    return (datetime.fromisoformat(job.record.finished) - datetime.fromisoformat(job.record.started)).total_seconds()


def plot(data: dict, path: Path) -> None:
    """Dice and clDice on the held-out images over the rounds, mean and standard deviation, as PNG."""
    from matplotlib.figure import Figure

    from univg.overlay import PREDICTION, REFERENCE

    rounds = [entry for entry in data["rounds"] if "dice" in entry]
    at = np.arange(len(rounds))
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.subplots()
    for name, label, colour, side in (("dice", "Dice", PREDICTION, -1), ("cldice", "clDice", REFERENCE, 1)):
        mean, spread = (np.array([entry[key] for entry in rounds]) for key in (name, f"{name}_sd"))
        shade = tuple(value / 255 for value in colour)
        axis.errorbar(at + 0.04 * side, mean, spread, color=shade, marker="o", capsize=3, lw=1.6, label=label)
        for place, value in zip(at, mean, strict=True):
            axis.annotate(
                f"{value:.3f}",
                (place + 0.04 * side, value),
                (7 * side, 10 * side),
                textcoords="offset points",
                ha="right" if side < 0 else "left",
                va="center",
                fontsize=8,
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
            )
    axis.set_xticks(at, [str(data["shots"] + number) for number in at])
    axis.set_xlim(-0.55, len(rounds) - 0.45)
    axis.set_xlabel(f"Annotated images: the first {data['shots']}, then one corrected in each round")
    axis.set_ylabel(f"On {len(data['held_out'])} held-out images, mean ± SD")
    axis.grid(alpha=0.25)
    figure.legend(frameon=False, loc="outside upper right", ncols=2)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--modality", default="fundus")
    parser.add_argument("--preset", choices=PRESETS, default="standard")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--held-out", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    args.json = args.json or args.work / "loop.json"
    os.environ.setdefault("NAPARI_CONFIG", str(args.work / "napari.yaml"))

    import napari

    from app.napari_plugin.retrain_panel import RetrainPanel
    from app.napari_plugin.session import session_of
    from univg.workflow.benchmark import describe_environment

    viewer = napari.Viewer()
    retrain = RetrainPanel(viewer)
    viewer.window.add_dock_widget(retrain, area="right")
    loop = Loop(args, session_of(viewer), retrain)
    try:
        loop.run()
    finally:
        loop.session.save_now()
        viewer.close()
    write_json_atomic(args.json, {**loop.data, "environment": describe_environment()})
    plot(loop.data, args.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
