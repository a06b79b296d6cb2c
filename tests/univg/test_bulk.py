"""Trees by the thousand: the same for any number of workers, resumable, and nothing lost with a killed process."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.conftest import make_pair
from univg import cli
from univg.errors import Cancelled, InputError
from univg.geometry import VesselTree, rasterize_tree
from univg.io import read_mask, read_provenance, sha256_file, write_mask
from univg.progress import ProgressEvent
from univg.sca import RECIPES, SCAConfig, TreeScene, generate_mask, grow_scene, preset_for
from univg.types import Modality
from univg.workflow import JobState, Project, bulk, cancel_job, resume_job, start_job, wait_for
from univg.workflow.bulk import dask_workers as dask
from univg.workflow.bulk import generate_trees
from univg.workflow.bulk.plan import checked_plan, pixels_sha256

SQUARE = ((40.0, 10.0), (40.0, 80.0), (90.0, 80.0), (90.0, 10.0))
ROOT = Path(__file__).resolve().parents[2]
COUNT = 20
SECONDS = 40.0

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIVG_STATE", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def masks():
    """Three real masks, not all of one size."""
    sizes = ((96, 96), (80, 120), (96, 96))
    return [generate_mask(Modality.OCTA, shape=size, rng=np.random.default_rng(i)) for i, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def reference_folder(tmp_path_factory, masks):
    """Every tree grown by this process, a few at a time."""
    folder = tmp_path_factory.mktemp("reference")
    for count in (8, 16, COUNT):
        grow(folder, masks, count=count)
    return folder


@pytest.fixture(scope="module")
def reference(reference_folder):
    """Hashes by file, and the digest."""
    return pixels_in(reference_folder), json.loads((reference_folder / "trees.json").read_text())["digest"]


@pytest.fixture
def finished(tmp_path, reference_folder):
    """A folder of finished trees to spoil."""
    return Path(shutil.copytree(reference_folder, tmp_path / "finished"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Somebody's cluster of one worker."""
    import dask
    from distributed import LocalCluster

    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with (
        dask.config.set({"temporary-directory": str(tmp_path_factory.mktemp("scratch"))}),
        LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster,
    ):
        yield cluster


def scene(**values):
    config = RECIPES["natural"] if values.pop("conditioned", False) else preset_for(Modality.OCTA).config
    return TreeScene(**{"modality": Modality.OCTA, "shape": (96, 96), "config": config, **values})


def grow(folder, masks=(), *, count=COUNT, drawn=None, **options):
    drawn = {"conditioned": bool(len(masks)), **(drawn or {})}
    return generate_trees(folder, scene(**drawn), masks=masks, count=count, **options)


def pixels_in(folder):
    """Hash of the pixels of each PNG, read anew."""
    return {path.name: pixels_sha256(read_mask(path)) for path in sorted(folder.glob("*.png"))}


def assert_whole(folder, reference):
    """Every tree once, with the right pixels and record, and nothing else left behind."""
    hashes, digest = reference
    assert pixels_in(folder) == hashes
    manifest = json.loads((folder / "trees.json").read_text())
    assert manifest["finished"] and (manifest["count"], manifest["digest"]) == (COUNT, digest)
    assert {f"{name}.png": sha for name, sha in manifest["pixels_sha256"].items()} == pixels_in(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*pixels_in(folder), "trees.json"])


def stop_after(step, seen):
    """`on_progress` and `should_stop` that stop once `step` trees are finished."""
    return {"on_progress": seen.append, "should_stop": lambda: bool(seen) and seen[-1].step >= step}


# --- the same whoever grows them


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_grow_the_same_trees(tmp_path, masks, reference, workers):
    seen = []
    summary = grow(tmp_path, masks, workers=workers, on_progress=seen.append)
    assert (summary.count, summary.made, summary.found, summary.digest) == (COUNT, COUNT, 0, reference[1])
    assert [event.step for event in seen] == list(range(COUNT + 1))
    assert_whole(tmp_path, reference)


def test_a_cluster_grows_the_same_trees_with_few_in_flight(tmp_path, masks, reference, cluster, monkeypatch):
    from distributed import Client

    submit, sent, most = Client.submit, [], []
    monkeypatch.setattr(Client, "submit", lambda self, f, *a, **k: (sent.append(f), submit(self, f, *a, **k))[1])

    def look(event):
        most.append(sent.count(dask._work) - event.step)

    grow(tmp_path, masks, scheduler=cluster.scheduler_address, on_progress=look)
    assert_whole(tmp_path, reference)
    assert max(most) <= dask._IN_FLIGHT_PER_THREAD
    assert sent.count(dask._itself) == 1 + len(masks), "what trees share travels once"


def test_each_mask_in_turn(tmp_path, masks):
    grow(tmp_path, masks, count=4, mask_sha256=["a", "b", "c"])
    records = [read_provenance(tmp_path / f"tree-0000{i}.png") for i in range(4)]
    assert [record["mask_sha256"] for record in records] == ["a", "b", "c", "a"]
    assert [read_mask(tmp_path / f"tree-0000{i}.png").shape for i in range(3)] == [mask.shape for mask in masks]
    assert (records[1]["seed"], records[1]["made_by"], records[1]["synthetic"]) == (1, "univg sca", True)


def test_importing_and_help_load_no_dask():
    code = "import sys; from univg.cli import build_parser; build_parser().format_help(); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "univg.workflow.bulk" in out.split() and not {"dask", "distributed", "torch"} & set(out.split())


# --- stopped, killed, damaged


def test_stopped_then_resumed(tmp_path, masks, reference):
    seen = []
    with pytest.raises(Cancelled, match="of 20 trees"):
        grow(tmp_path, masks, workers=2, **stop_after(3, seen))
    kept = pixels_in(tmp_path)
    assert 3 <= len(kept) < COUNT and kept.items() <= reference[0].items()
    written = {name: (tmp_path / name).stat().st_mtime_ns for name in kept}
    summary = grow(tmp_path, masks, workers=2)
    assert (summary.found, summary.made) == (len(kept), COUNT - len(kept))
    assert written == {name: (tmp_path / name).stat().st_mtime_ns for name in kept}, "finished trees are left alone"
    assert_whole(tmp_path, reference)


@posix_only
def test_killed_workers_lose_and_double_nothing(tmp_path, masks, reference):
    killed = set()

    def kill_a_worker(event):
        if event.stage != bulk.STAGE or event.step not in (2, 9):
            return
        workers = [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
        victim = next(process for process in workers if process.pid not in killed)
        killed.add(victim.pid)
        os.kill(victim.pid, signal.SIGKILL)

    summary = grow(tmp_path, masks, workers=1, on_progress=kill_a_worker)
    assert len(killed) == 2
    assert (summary.made, summary.digest) == (COUNT, reference[1])
    assert_whole(tmp_path, reference)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text", "other pixels", "missing"])
def test_damaged_tree_is_made_again(finished, masks, reference, damage):
    bad = finished / "tree-00002.png"
    data, record = bad.read_bytes(), read_provenance(bad)
    if damage == "truncated":
        bad.write_bytes(data[:-60])
    elif damage == "flipped":
        at = data.index(b"IDAT") + 30
        bad.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
    elif damage == "empty":
        bad.write_bytes(b"")
    elif damage == "text":
        bad.write_text("not a picture")
    elif damage == "other pixels":
        write_mask(bad, ~read_mask(bad), provenance=record)
    else:
        bad.unlink()
    summary = grow(finished, masks)
    assert (summary.made, summary.found) == (1, COUNT - 1)
    assert_whole(finished, reference)


def test_leftovers_of_a_killed_run_are_removed(finished, masks, reference):
    (finished / f".{'0f' * 16}.tmp").write_bytes(b"half a picture")
    (finished / "notes.tmp").write_text("the user's")
    grow(finished, masks)
    (finished / "notes.tmp").unlink()
    assert_whole(finished, reference)


def test_larger_count_adds_and_smaller_changes_nothing(finished, masks, reference):
    before = (finished / "trees.json").read_bytes()
    assert grow(finished, masks, count=2).count == 2
    assert (finished / "trees.json").read_bytes() == before
    assert_whole(finished, reference)
    summary = grow(finished, masks, count=COUNT + 1)
    assert (summary.found, summary.made) == (COUNT, 1)
    assert pixels_in(finished).items() > reference[0].items()


def test_damaged_manifest_is_written_again(finished, masks, reference):
    (finished / "trees.json").write_text('{"format": ')
    assert grow(finished, masks).found == COUNT
    assert_whole(finished, reference)
    (finished / "trees.json").unlink()
    with pytest.raises(InputError, match=r"made otherwise.*tree-00000.png"):
        grow(finished, masks, drawn={"config": SCAConfig(smoothing=1)})
    assert grow(finished, masks).found == COUNT


# --- refused


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"drawn": {"seed": 1}}, "another seed (0, not 1)"),
        ({"drawn": {"modality": Modality.OCT}}, "another modality (octa, not oct)"),
        ({"drawn": {"shape": (96, 128)}}, "another size"),
        ({"drawn": {"roots": ((3.0, 4.0),)}}, "other roots"),
        ({"drawn": {"boundary": SQUARE}}, "another boundary"),
        ({"drawn": {"obstacles": (SQUARE,)}}, "other obstacles"),
        ({"drawn": {"preset": "octa"}}, "another preset"),
        ({"masks": [np.eye(96, dtype=bool)]}, "other masks"),
        ({"drawn": {"config": SCAConfig(grid_reach=float("inf"), smoothing=1)}}, "other growth parameters"),
    ],
)
def test_folder_of_other_parameters_is_refused(tmp_path, other, words):
    grow(tmp_path, count=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError) as refusal:
        grow(tmp_path, count=3, **other)
    assert words in str(refusal.value) and refusal.value.path == tmp_path
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_pictures_of_the_user_are_not_overwritten(tmp_path):
    grow(tmp_path, count=2)
    write_mask(tmp_path / "tree-00002.png", np.eye(96, dtype=bool))
    with pytest.raises(InputError, match="in the way"):
        grow(tmp_path, count=4)
    np.testing.assert_array_equal(read_mask(tmp_path / "tree-00002.png"), np.eye(96, dtype=bool))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "`count`"),
        ({"count": "3"}, "`count`"),
        ({"count": 10**9}, "`count`"),
        ({"drawn": {"seed": -1}}, "seed"),
        ({"workers": 0}, "`workers`"),
        ({"workers": 1, "scheduler": "127.0.0.1:1"}, "`workers`"),
        ({"formats": ["gif"]}, "gif"),
        ({"drawn": {"roots": ((3, 400),)}}, "outside"),
        ({"drawn": {"roots": ((3, float("nan")),)}}, "outside"),
        ({"drawn": {"boundary": SQUARE}, "masks": [np.ones((96, 100), bool)]}, "drawn on 96 x 96"),
        ({"masks": [np.zeros((96, 96), bool)]}, "Mask 1 of 1 is empty"),
    ],
)
def test_bad_input_makes_no_folder(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        grow(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_roots_that_the_boundary_leaves_out(tmp_path):
    with pytest.raises(InputError, match=r"Tree 0 cannot grow: `roots`"):
        grow(tmp_path, count=1, drawn={"roots": ((5.0, 5.0),), "boundary": SQUARE})


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense://x:1", "host", ""])
def test_scheduler_that_cannot_be_reached(tmp_path, monkeypatch, address):
    monkeypatch.setattr(dask, "_CONNECT_SECONDS", 0.3)
    with pytest.raises(InputError, match=f"No Dask scheduler can be reached at '{address}'"):
        grow(tmp_path, count=2, scheduler=address)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot write here") as refusal:
        grow(tmp_path / "file" / "out", count=2)
    assert refusal.value.path == tmp_path / "file" / "out"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(InputError, match="You may not write here") as refusal:
            grow(tmp_path, count=2)
    finally:
        tmp_path.chmod(0o755)
    assert refusal.value.path == tmp_path


def test_folder_that_a_worker_cannot_use(tmp_path, cluster, monkeypatch):
    """The folder is gone once the manifest is written, as it is for a machine that does not share it."""

    def claim(plan, count):
        manifest = claimed(plan, count)
        plan.folder.rename(plan.folder.with_name("elsewhere"))
        plan.folder.mkdir()
        return manifest

    claimed = bulk.claimed_manifest
    monkeypatch.setattr(bulk, "claimed_manifest", claim)
    with pytest.raises(InputError, match="does not see the output folder") as refusal:
        grow(tmp_path / "out", count=2, scheduler=cluster.scheduler_address)
    assert refusal.value.path == tmp_path / "out"


def test_second_run_on_a_folder_is_refused(tmp_path):
    def grow_again(event):
        with pytest.raises(InputError, match="Another run"):
            grow(tmp_path, count=2)

    grow(tmp_path, count=2, on_progress=grow_again)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree-00000.png", "tree-00001.png", "trees.json"]


def test_errors_of_a_cluster_are_for_people(tmp_path):
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    with pytest.raises(InputError, match=r"same tree.*fewer workers"):
        dask._received("error", (KilledWorker, KilledWorker("key", None, 3), None), "tree", tmp_path)
    with pytest.raises(InputError, match="connection to the Dask scheduler was lost"):
        dask._received("cancelled", FutureCancelledError("key", "lost"), "tree", tmp_path)
    with pytest.raises(ZeroDivisionError):
        dask._received("error", (ZeroDivisionError, ZeroDivisionError(), None), "tree", tmp_path)
    assert dask._received("finished", 0.5, "pair", tmp_path) == 0.5
    plan = checked_plan(tmp_path, (), scene(), mask_sha256=(), mask_names=(), hubs=(), formats=())
    assert str(tmp_path) not in repr(plan)


# --- the tree itself


def test_tree_is_kept_as_json_and_can_be_added_later(tmp_path, masks, reference):
    grow(tmp_path, masks, count=2)
    summary = grow(tmp_path, masks, count=2, formats=["json"])
    assert summary.made == 2
    for name, sha in list(reference[0].items())[:2]:
        tree = VesselTree.from_json((tmp_path / name).with_suffix(".json").read_text())
        assert pixels_sha256(rasterize_tree(tree)) == sha
        assert len(tree) == read_provenance(tmp_path / name)["nodes"]
        assert tree.meta["pixels_sha256"] == sha
    assert grow(tmp_path, masks, count=2, formats=["json", "png"]).found == 2


def test_tree_as_swc(tmp_path, masks):
    pytest.importorskip("univg.geometry.swc")
    grow(tmp_path, masks, count=1, formats=["swc"])
    rows = [row for row in (tmp_path / "tree-00000.swc").read_text().splitlines() if row and row[0] != "#"]
    assert len(rows) == read_provenance(tmp_path / "tree-00000.png")["nodes"]


# --- the command


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_command_takes_masks_and_folders_of_them(tmp_path, masks, capsys):
    (tmp_path / "real").mkdir()
    for number, mask in enumerate(masks):
        write_mask(tmp_path / "real" / f"{2 - number}.png", mask)
    write_mask(tmp_path / "one.png", masks[0])
    out = tmp_path / "out"
    arguments = ["sca", "--modality", "octa", "--mask", tmp_path / "one.png", "--mask", tmp_path / "real", "-o", out]
    assert run(*arguments, "-n", 4, "--seed", 7, "--format", "json") == 0
    assert f"4 masks in {out}\n" in capsys.readouterr().out
    order = [tmp_path / name for name in ("one.png", "real/0.png", "real/1.png", "real/2.png")]
    for number, file in enumerate(order, 7):
        assert read_provenance(out / f"tree-{number:05d}.png")["mask_sha256"] == sha256_file(file)
        assert (out / f"tree-{number:05d}.json").is_file()
    assert run(*arguments, "-n", 5, "--seed", 7) == 0
    assert "(4 were there already)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "0"], "--workers"),
        (["--workers", "2", "--scheduler", "127.0.0.1:1"], "--workers"),
        (["--mask", "empty-folder"], "holds no mask"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_command_refuses_bad_input(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty-folder").mkdir()
    assert run("sca", "--modality", "octa", *arguments, "-o", "out") == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@posix_only
def test_interrupt_keeps_what_is_done(tmp_path):
    """Ctrl-C reaches the whole group, workers included; only one line is said about it."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "univg", "sca", "--modality", "octa", "--size", "256", "-n", "400"]
    process = subprocess.Popen(
        [*command, "--workers", "2", "-o", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + SECONDS
    while len(list(out.glob("*.png"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out_text, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out_text) == (130, "")
    assert re.fullmatch(r"univg: Stopped with \d+ of 400 trees finished; the same command goes on .*\n", err)
    done = pixels_in(out)
    assert len(list(out.iterdir())) == len(done) + 1
    assert run(*command[3:], "-n", 8, "-o", out) == 0
    assert pixels_in(out).items() >= done.items()
    assert pixels_in(out).keys() == done.keys() | {f"tree-0000{i}.png" for i in range(8)}


# --- the job


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "project", modality=Modality.OCTA, working_size=64)
    for number in range(2):
        project.add_support_pair(make_pair(f"eye {number}", seed=number))
    return project


def test_job_grows_trees_along_the_support_masks(project):
    params = {
        "count": 4,
        "scene": scene(seed=5, config=SCAConfig(smoothing=2), shape=(64, 64)).to_json(),
        "masks": project.support_names(),
        "formats": ["json"],
        "folder": "set",
    }
    job = wait_for(start_job(project, "trees", params), SECONDS)
    assert (job.state, job.error) == (JobState.DONE, None)
    assert job.result().items() >= {"folder": "trees/set", "count": 4, "made": 4, "found": 0}.items()
    assert job.latest_event().stage == "trees" and job.latest_event().fraction == 1
    path = project.trees_folder / "set" / "tree-00006.png"
    again = TreeScene.from_json(read_provenance(path))
    assert (again.mask_name, again.seed, again.config.smoothing) == ("eye 1", 6, 2)
    assert again.mask_sha256 == project.load_support().sha256["masks/eye 1.png"]
    mask = project.support_pair("eye 1").mask
    np.testing.assert_array_equal(rasterize_tree(grow_scene(again, mask=mask)), read_mask(path))


def test_job_cancelled_then_resumed(project):
    params = {"count": 2000, "workers": 1, "folder": "many", "scene": scene().to_json()}
    job = start_job(project, "trees", params)
    folder = project.trees_folder / "many"
    deadline = time.monotonic() + SECONDS
    while not list(folder.glob("*.png")):
        assert time.monotonic() < deadline, job.refreshed().error
        time.sleep(0.05)
    cancel_job(job)
    job = wait_for(job, SECONDS)
    kept = len(list(folder.glob("*.png")))
    assert job.state is JobState.CANCELLED and 0 < kept < 2000
    job = resume_job(job)
    deadline = time.monotonic() + SECONDS
    while len(list(folder.glob("*.png"))) <= kept:
        assert time.monotonic() < deadline, job.refreshed().error
        time.sleep(0.05)
    cancel_job(job)
    assert wait_for(job, SECONDS).state is JobState.CANCELLED


class Context:
    """What `run_trees_job` uses of a job's context."""

    def __init__(self):
        self.events: list[ProgressEvent] = []
        self.on_progress = self.events.append

    def should_stop(self):
        return False


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"folder": "x", "scene": "none"}, "No tree can be grown"),
        ({"folder": "x"}, "No tree can be grown"),
        ({"folder": "x", "scene": {"format": "univg-scene/1"}}, "No tree can be grown"),
        ({"scene": "good"}, "name"),
        ({"scene": "good", "folder": "../x"}, "dot"),
        ({"scene": "good", "folder": "x"}, "`count`"),
        ({"scene": "good", "folder": "x", "count": 1, "masks": ["nobody"]}, "nobody"),
    ],
)
def test_job_refuses_bad_parameters(project, params, words):
    if params.get("scene") == "good":
        params = {**params, "scene": scene().to_json()}
    with pytest.raises(InputError, match=words):
        bulk.run_trees_job(project, params, Context())
    assert not list(project.trees_folder.iterdir())
