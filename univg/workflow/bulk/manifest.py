"""The folder of a run: who may write to it, what it says it holds, and which trees in it are finished."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from univg.errors import Cancelled, InputError
from univg.io import read_image, read_json, read_provenance, write_json_atomic
from univg.progress import OnProgress, ProgressEvent, ShouldStop
from univg.workflow.bulk.plan import FORMAT, Plan, TreeFacts, pixels_sha256, tree_name
from univg.workflow.folder_access import utc_now, writing

MANIFEST_FILE = "trees.json"

_CHECKED_AT_ONCE = 64
_LEFTOVER = re.compile(r"\.[0-9a-f]{32}\.tmp")
_DIFFERENCES = {
    "modality": "another modality",
    "seed": "another seed",
    "masks": "other masks",
    "shape": "another size",
    "preset": "another preset",
    "roots": "other roots",
    "boundary": "another boundary",
    "obstacles": "other obstacles",
    "hubs": "another place that vessels come from",
    "config": "other growth parameters",
}


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Make `folder` and keep other runs out of it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError("Another run is growing trees into this folder", path=folder, fix="Wait for it.") from None
    try:
        yield
    finally:
        # While the lock is held: whoever waits for the old file then sees that it is gone and makes a new one.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def claimed_manifest(plan: Plan, count: int) -> dict:
    """The manifest in the folder, written if there was none; `InputError` when the folder is another plan's."""
    manifest = readable_manifest(plan.folder)
    if manifest is None:
        _refuse_other_trees(plan)
        manifest = {"created": utc_now()}
    elif manifest.get("parameters_sha256") != plan.key:
        raise _made_otherwise(plan, manifest.get("parameters"))
    if not _covers(manifest, count):
        manifest = {
            "format": FORMAT,
            "parameters_sha256": plan.key,
            "parameters": plan.parameters(),
            "mask_files_sha256": list(plan.mask_files),
            "created": manifest["created"],
            "finished": None,
            "count": count,
        }
        write_json_atomic(plan.folder / MANIFEST_FILE, manifest)
    return manifest


def complete_manifest(plan: Plan, manifest: dict, facts: Sequence[TreeFacts], *, nodes: int, digest: str) -> None:
    """Put on record that the trees of `facts`, in order, are there."""
    if _covers(manifest, len(facts)):
        return
    finished = {
        "finished": utc_now(),
        "nodes": nodes,
        "digest": digest,
        "pixels_sha256": {tree_name(plan.scene.seed, fact.index): fact.pixels_sha256 for fact in facts},
    }
    write_json_atomic(plan.folder / MANIFEST_FILE, {**manifest, **finished})


def _covers(manifest: Mapping, count: int) -> bool:
    """Whether a finished run recorded at least `count` trees."""
    return bool(manifest.get("finished")) and manifest.get("count", 0) >= count


def readable_manifest(folder: Path) -> dict | None:
    """The manifest, or None when it is missing or damaged: the PNGs then say what they were made from."""
    try:
        manifest = read_json(folder / MANIFEST_FILE)
    except InputError:
        return None
    known = isinstance(manifest, dict) and manifest.get("format") == FORMAT and "created" in manifest
    return manifest if known else None


def _made_otherwise(plan: Plan, theirs: object) -> InputError:
    """The error for a folder of other parameters, naming the first that differs."""
    ours = plan.parameters()
    theirs = theirs if isinstance(theirs, dict) else {}
    name = next((name for name in _DIFFERENCES if theirs.get(name) != ours[name]), "config")
    detail = f" ({theirs.get(name)}, not {ours[name]})" if name in ("modality", "seed") else ""
    return InputError(
        f"This folder holds trees made with {_DIFFERENCES[name]}{detail}",
        path=plan.folder,
        fix="Choose another folder, or repeat the parameters to go on with this one.",
    )


def _refuse_other_trees(plan: Plan) -> None:
    """Raise when the folder has trees and the first that can be read is not of this plan."""
    for path in sorted(plan.folder.glob("tree-*.png")):
        with suppress(_Damaged):
            _checked_record(plan, path)
            return


class _Damaged(Exception):  # noqa: N818 - says what a file is; never leaves this module
    """A file that is not what was once written there."""


def _checked_record(plan: Plan, path: Path) -> dict:
    """What the tree in `path` says of itself; `InputError` when it is not of this plan."""
    try:
        record = read_provenance(path) or {}
    except InputError:
        raise _Damaged from None
    if record.get("parameters_sha256") != plan.key:
        raise InputError(
            "A picture of this name that was made otherwise is in the way", path=path, fix="Choose another folder."
        )
    return record


def finished_trees(plan: Plan, count: int, on_progress: OnProgress, should_stop: ShouldStop) -> Iterator[TreeFacts]:
    """The trees of this plan that are in its folder, whole and with all their files."""
    names = {path.name for path in plan.folder.iterdir()}
    present = [index for index in range(count) if plan.path(index, "png").name in names]
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(present), _CHECKED_AT_ONCE):
            if should_stop():
                raise Cancelled("Stopped while looking for finished trees")
            some = present[first : first + _CHECKED_AT_ONCE]
            for index, fact in zip(some, pool.map(functools.partial(_finished_tree, plan), some), strict=True):
                if fact is not None and all(plan.path(index, suffix).name in names for suffix in plan.formats):
                    yield fact
            on_progress(ProgressEvent("finished trees", first + len(some), len(present)))


def _finished_tree(plan: Plan, index: int) -> TreeFacts | None:
    """Tree `index` as it is in the folder, or None when the file is damaged and must be made again."""
    path = plan.path(index, "png")
    try:
        record = _checked_record(plan, path)
    except _Damaged:
        return None
    try:
        pixels = read_image(path)
    except InputError:
        return None
    fact = TreeFacts(index, pixels_sha256(pixels > 0), record.get("nodes"))
    return fact if fact.pixels_sha256 == record.get("pixels_sha256") else None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of writers that were killed."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()
