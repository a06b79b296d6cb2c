"""How long the window of napari stands still while the plugin works: the longest gap of its event loop.

usage: python benchmarks/napari_frames.py [--json FILE] [--no-training] [--alone] [--why]

A real viewer opens with the Project, Correct, Retrain and Measurements panels, on a screen or under Xvfb:

    QT_QPA_PLATFORM=xcb xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/napari_frames.py

A timer that should fire every 5 ms says how late it is. Strokes are mouse events on the canvas, so that all of
napari's own work is in the figures; those of napari alone, without the plugin, are measured first. Run it with
nothing else on the computer. ``--why`` prints what the window's thread was doing while it stood still.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from univg.io import read_json, write_json_atomic

BAR_MS, OVERLAY_BAR_S = 100.0, 0.5
TICK_MS = 5
LARGE = (3000, 4000)


class Gaps:
    """Lateness of a timer, phase by phase."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.phases: dict[str, dict] = {}
        self._late: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def explain(self) -> None:
        """From now on print the stack of this thread when it stands still."""
        threading.Thread(target=self._sample, args=(threading.get_ident(),), daemon=True).start()

    def _sample(self, thread: int) -> None:
        said = 0.0
        while True:
            time.sleep(0.01)
            last = self._last
            if 1000 * (time.perf_counter() - last) > BAR_MS * 0.7 and said != last:
                said = last
                frames = traceback.extract_stack(sys._current_frames()[thread])[-9:]
                print("   ", " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames[::-1]))

    def _tick(self) -> None:
        now = time.perf_counter()
        self._late.append(max(1000 * (now - self._last) - TICK_MS, 0.0))
        self._last = now

    @contextlib.contextmanager
    def phase(self, name: str, **facts: float) -> Iterator[dict]:
        """Figures of the block; the dict that it gets may take more of them."""
        self._late, self._last = [], time.perf_counter()
        more: dict = dict(facts)
        started = time.perf_counter()
        yield more
        wait(0.3)  # what the block left to be done belongs to it
        late = np.asarray(self._late)
        self.phases[name] = {
            "longest_ms": float(late.max()),
            "p99_ms": float(np.percentile(late, 99)),
            "over_bar": int((late > BAR_MS).sum()),
            "seconds": time.perf_counter() - started,
            **more,
        }
        facts_text = ", ".join(f"{key} {value:.3g}" for key, value in more.items())
        print(f"{name}: longest {late.max():.0f} ms, 99 % {np.percentile(late, 99):.0f} ms; {facts_text}", flush=True)


def wait(condition: float | Callable[[], bool], limit: float = 900.0) -> None:
    """Let the event loop run for so many seconds, or until `condition` holds."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    if not callable(condition):
        QTimer.singleShot(round(1000 * condition), loop.quit)
        loop.exec()
        return
    until = time.monotonic() + limit
    look = QTimer()
    look.setInterval(10)
    expired = []

    def check() -> None:
        if condition() or time.monotonic() > until:
            expired.append(not condition())
            loop.quit()

    look.timeout.connect(check)
    look.start()
    loop.exec()
    look.stop()
    if any(expired):
        raise SystemExit("Something that was waited for did not happen.")


def stroke(viewer, layer, points: np.ndarray, *, pause: float = 0.008) -> None:
    """Drag the mouse through ``(row, col)`` points of `layer`, as a hand does: one event at a time."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    native = viewer.window._qt_viewer.canvas.native
    camera = getattr(viewer, "scene", viewer).camera  # its place since napari 0.9
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton

    def at(point: np.ndarray) -> QPointF:
        world = np.asarray(layer.data_to_world(point))
        row, col = (world - np.asarray(camera.center[-2:])) * camera.zoom
        return QPointF(native.width() / 2 + col, native.height() / 2 + row)

    def post(kind, place: QPointF, button, buttons) -> None:
        where = native.mapToGlobal(place.toPoint())
        event = QMouseEvent(kind, place, QPointF(where), button, buttons, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(native, event)

    post(QEvent.Type.MouseMove, at(points[0]), none, none)
    post(QEvent.Type.MouseButtonPress, at(points[0]), left, left)
    for point in points[1:]:
        post(QEvent.Type.MouseMove, at(point), none, left)
        wait(pause)
    post(QEvent.Type.MouseButtonRelease, at(points[-1]), left, none)


def wave(shape: tuple[int, int], number: int, steps: int = 60) -> np.ndarray:
    """A winding line across the middle of the frame."""
    rows, cols = shape
    share = np.linspace(0.25, 0.75, steps)
    return np.column_stack(
        [rows * (0.35 + 0.06 * number) + 0.04 * rows * np.sin(9 * share), cols * (0.5 + (share - 0.5) * 0.7)]
    )


def paint_alone(viewer, gaps: Gaps, name: str, shape: tuple[int, int]) -> None:
    """napari by itself: a Labels layer of the same size and no plugin."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
    # As many layers as the plugin shows of an image that it has segmented.
    with gaps.phase(f"napari alone: opening {name}"):
        image = viewer.add_image(pixels, rgb=True)
        probability = viewer.add_image(pixels[..., 0] / np.float32(255), opacity=0.5)
        labels = viewer.add_labels(np.zeros(shape, np.uint8))
        viewer.layers.selection.active = labels
        viewer.reset_view()
        wait(1.0)
    labels.mode, labels.brush_size = "paint", max(shape[0] // 170, 3)
    wait(0.5)
    with gaps.phase(f"napari alone: painting on {name}"):
        for number in range(3):
            stroke(viewer, labels, wave(shape, number))
    for layer in (labels, probability, image):
        viewer.layers.remove(layer)
    wait(0.5)


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Programs that compute on every core, with the priority of a job."""
    work = (
        "from univg.workflow.job_runner import make_way; make_way(); import numpy as np; m = np.ones((500, 500), 'f')"
    )
    command = [sys.executable, "-c", f"{work}\nwhile True: m @ m"]
    programs = [
        subprocess.Popen(command, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, start_new_session=True)
        for _ in range(os.cpu_count() or 1)
    ]
    wait(3.0)
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def paint(session, gaps: Gaps, name: str) -> None:
    """Strokes of the brush and each vessel-aware tool on the image that is open."""
    viewer, labels = session.viewer, session.labels
    shape = labels.data.shape
    viewer.reset_view()
    viewer.layers.selection.active = labels
    labels.mode, labels.brush_size = "paint", max(shape[0] // 170, 3)
    wait(1.0)
    with gaps.phase(f"painting on {name}") as facts:
        before = session.mask()
        for number in range(3):
            stroke(viewer, labels, wave(shape, number))
        facts["pixels"] = float((session.mask() != before).sum())
    with gaps.phase(f"undoing on {name}"):
        for _ in range(3):
            labels.undo()
            wait(0.05)
    with gaps.phase(f"saving by itself on {name}"):
        labels.data_setitem((np.array([1, 1]), np.array([1, 2])), 1)
        wait(lambda: np.array_equal(session.open.saved, session.mask()))


def use_tools(session, correct, gaps: Gaps, name: str) -> None:
    mask = session.mask()
    rows, cols = np.nonzero(mask)
    middle = int(np.argmin(np.abs(rows - mask.shape[0] / 2) + np.abs(cols - mask.shape[1] / 2)))
    point = (float(rows[middle]), float(cols[middle]))
    scale = mask.shape[0] / 512

    def settled() -> bool:
        return session.busy == 0

    def snap() -> None:
        correct.take("snap")
        correct.stroke(np.array(point) + scale * np.column_stack([np.linspace(0, 40, 30), np.linspace(0, 25, 30)]))

    def bridge() -> None:
        correct.take("bridge")
        correct.click(point)
        correct.click((point[0] + 30 * scale, point[1] + 20 * scale))

    def cut() -> None:
        correct.take("cut")
        correct.click(point)

    for tool, use in (
        ("snap", snap),
        ("bridge", bridge),
        ("specks", correct.remove_specks),
        ("spurs", correct.prune_spurs),
        ("cut", cut),
    ):
        with gaps.phase(f"{tool} on {name}") as facts:
            started = time.perf_counter()
            use()
            wait(settled)
            facts["done_after_s"] = time.perf_counter() - started
    correct.take("")


def large_image(folder: Path) -> Path:
    """A made-up fundus image of 4,000 x 3,000 pixels: one of the sample, enlarged, with grain of its own."""
    import cv2

    from univg.io import read_image, write_image
    from univg.workflow.sample import sample_unseen_images

    small = read_image(sample_unseen_images()[0])
    image = cv2.resize(small, LARGE[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = np.random.default_rng(0).integers(-6, 7, image.shape, dtype=np.int16)
    path = folder / "large.png"
    write_image(path, np.clip(image + grain, 0, 255).astype(np.uint8))
    return path


def measure_alone(*, training: bool) -> dict:
    """Figures of napari without the plugin."""
    viewer, gaps = _open_viewer()
    paint_alone(viewer, gaps, "512 x 512", (512, 512))
    paint_alone(viewer, gaps, "4,000 x 3,000", LARGE)
    if training:
        with busy_cores():
            paint_alone(viewer, gaps, "512 x 512 while other programs compute", (512, 512))
    viewer.close()
    return gaps.phases


def _open_viewer():
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1400, 900)
    wait(1.0)
    return viewer, Gaps()


def measure(folder: Path, *, training: bool, why: bool) -> dict:
    from qtpy.QtWidgets import QApplication

    from app.napari_plugin.correct_panel import CorrectPanel
    from app.napari_plugin.measure_panel import MeasurePanel
    from app.napari_plugin.project_panel import ProjectPanel
    from app.napari_plugin.retrain_panel import RetrainPanel
    from app.napari_plugin.session import session_of
    from univg.workflow.jobs import JobState

    viewer, gaps = _open_viewer()
    if why:
        gaps.explain()
    session = session_of(viewer)
    project, correct, retrain, measures = (
        kind(viewer) for kind in (ProjectPanel, CorrectPanel, RetrainPanel, MeasurePanel)
    )
    docks = [viewer.window.add_dock_widget(panel, area="right", tabify=True) for panel in (project, correct, retrain)]
    viewer.window.add_dock_widget(measures, area="left")
    docks[1].raise_()
    project.open_sample(folder / "project")
    session.open_image(session.queue.entries()[-1].name)
    wait(lambda: session.labels is not None)
    wait(1.0)

    with gaps.phase("at rest"):
        wait(3.0)
    retrain.effort.setCurrentIndex(retrain.effort.findData("preview"))
    with gaps.phase("starting a training job"):
        retrain.start()
        wait(lambda: retrain.job is not None)
        wait(1.0)
    if training:
        wait(lambda: bool(retrain._reports.loss) or retrain.job.state.finished)
        with gaps.phase("a training job runs"):
            wait(10.0)
        paint(session, gaps, "512 x 512 while training")
    with gaps.phase("until the training job ends"):
        wait(lambda: retrain.job.state.finished)
    if retrain.job.state is not JobState.DONE:
        raise SystemExit(f"The training ended {retrain.job.state}: {retrain.job.error}")

    large = large_image(folder)
    unseen = [entry.name for entry in session.queue.entries() if not entry.annotated]
    shown: list[float] = []
    session.segmented.connect(lambda: shown.append(time.perf_counter()))

    def segment(act: Callable[[], None]) -> float:
        count, started = len(shown), time.perf_counter()
        act()
        wait(lambda: len(shown) > count)
        QApplication.processEvents()  # draws it
        return time.perf_counter() - started

    with gaps.phase("first model load and segmentation") as facts:
        facts["overlay_s"] = segment(lambda: session.open_image(unseen[0]))
        wait(lambda: session.busy == 0 and not session._scoring.busy)
    with gaps.phase("segmenting 512 x 512") as facts:
        times = [segment(session.segment) for _ in range(7)]
        facts["overlay_s"], facts["slowest_s"] = float(np.median(times)), max(times)
    with gaps.phase("opening and segmenting 512 x 512") as facts:
        times = [segment(lambda name=name: session.open_image(name)) for name in (*unseen[::-1], *unseen[::-1])]
        facts["overlay_s"] = float(np.median(times))
    paint(session, gaps, "512 x 512")
    use_tools(session, correct, gaps, "512 x 512")

    if training:
        first = retrain.job.id
        retrain.start()
        wait(lambda: retrain.job.id != first)
        wait(lambda: bool(retrain._reports.loss) or retrain.job.state.finished)
        with gaps.phase("segmenting 512 x 512 while training") as facts:
            times = [segment(session.segment) for _ in range(7)]
            facts["overlay_s"], facts["slowest_s"] = float(np.median(times)), max(times)
        retrain.cancel()
        wait(lambda: retrain.job.state.finished)

    with gaps.phase("adding a file of 4,000 x 3,000 to the queue"):
        project.add([str(large)])
        wait(lambda: any(entry.name == "large" for entry in session.queue.entries()))
    with gaps.phase("opening and segmenting 4,000 x 3,000") as facts:
        facts["overlay_s"] = segment(lambda: session.open_image("large"))
    wait(lambda: session.busy == 0 and not measures._newest.busy)
    with gaps.phase("segmenting 4,000 x 3,000") as facts:
        facts["overlay_s"] = segment(session.segment)
    wait(lambda: not measures._newest.busy)
    with gaps.phase("at rest on 4,000 x 3,000"):
        wait(3.0)
    paint(session, gaps, "4,000 x 3,000")
    wait(lambda: not measures._newest.busy)
    use_tools(session, correct, gaps, "4,000 x 3,000")
    wait(lambda: not measures._newest.busy)
    viewer.close()
    return gaps.phases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "napari_frames.json")
    parser.add_argument("--no-training", action="store_true", help="leave out what is measured beside a training job")
    parser.add_argument("--alone", action="store_true", help="measure napari without the plugin, and nothing else")
    parser.add_argument("--why", action="store_true", help="print what the window's thread did when it stood still")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("NAPARI_CONFIG", str(Path(folder) / "napari.yaml"))
        os.environ.setdefault("UNIVG_STATE", str(Path(folder) / "state"))
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        if args.alone:
            write_json_atomic(args.json, measure_alone(training=not args.no_training))
            return
        # In a process of its own: with Mesa's software renderer, a viewer whose layers were removed three times crashes
        # when a dock is added, without the plugin too.
        alone = Path(folder) / "alone.json"
        options = ["--alone", "--json", str(alone), *(["--no-training"] if args.no_training else [])]
        subprocess.run([sys.executable, __file__, *options], check=True)
        phases = {**read_json(alone), **measure(Path(folder), training=not args.no_training, why=args.why)}
    import qtpy

    from univg.workflow.benchmark import describe_environment

    over = [name for name, phase in phases.items() if phase["longest_ms"] > BAR_MS and "alone" not in name]
    environment = {**describe_environment(), "qt": f"{qtpy.API_NAME} {qtpy.QT_VERSION}", "load_at_start": load}
    write_json_atomic(args.json, {"bar_ms": BAR_MS, "over_the_bar": over, "phases": phases, "environment": environment})
    print(f"over {BAR_MS:.0f} ms: {', '.join(over) or 'nothing'}")


if __name__ == "__main__":
    main()
