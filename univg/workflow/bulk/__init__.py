"""Vessel trees by the thousand: grown on every core or on a Dask cluster, written one by one, resumable.

Tree i of a folder depends on the seed, on i and on the inputs alone, so neither the number of workers nor an
interruption changes a pixel. ``trees.json`` says what the folder is made from, and every PNG carries the hash of that:
one that does, and whose pixels are what it says, is finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from univg.errors import Cancelled, InputError
from univg.io import check_stem
from univg.progress import OnProgress, ProgressEvent, ShouldStop, StageClock, ignore_progress, never_stop
from univg.sca import TreeScene, find_hub
from univg.workflow.bulk.dask_workers import cluster, grown_by_workers
from univg.workflow.bulk.manifest import (
    MANIFEST_FILE,
    claimed_manifest,
    complete_manifest,
    finished_trees,
    remove_leftovers,
    sole_writer,
)
from univg.workflow.bulk.plan import FORMATS, PackedMask, Plan, TreeFacts, checked_plan, grow_and_write, pack_masks
from univg.workflow.job_context import JobContext
from univg.workflow.project import Project

__all__ = ["FORMATS", "MANIFEST_FILE", "MAX_COUNT", "BulkSummary", "generate_trees", "run_trees_job"]

MAX_COUNT = 500_000  # with more, the list of hashes in trees.json outgrows what is read back
STAGE = "trees"

_MAX_WORKERS = 1024
_IN_PROCESS_BELOW = 16  # starting processes takes longer than growing this few trees


@dataclass(frozen=True)
class BulkSummary:
    """What `generate_trees` did.

    Attributes
    ----------
    folder : Path
    count : int
        Trees asked for, all of which are there.
    made, found : int
        How many of them this call grew, and how many were finished already.
    nodes : int
        Nodes of all trees together.
    digest : str
        SHA-256 over the pixels of all trees in order: equal for equal runs, whatever the number of workers.
    """

    folder: Path
    count: int
    made: int
    found: int
    nodes: int
    digest: str

    def to_json(self) -> dict:
        return {**asdict(self), "folder": self.folder.name}


def generate_trees(
    output: str | Path,
    scene: TreeScene,
    *,
    count: int,
    masks: Sequence[np.ndarray] = (),
    mask_sha256: Sequence[str] = (),
    mask_names: Sequence[str] = (),
    hubs: Sequence[tuple[float, float] | None] = (),
    formats: Sequence[str] = ("png",),
    scheduler: str | None = None,
    workers: int | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> BulkSummary:
    """Grow `count` trees into a folder, or those of them that are missing there.

    Called again with the same parameters it goes on where it was stopped or killed; a larger `count` adds to them.
    A script that calls it needs the usual ``if __name__ == "__main__":``, because many trees are grown by processes.

    Parameters
    ----------
    output : path-like
        Folder, made if need be.
    scene : TreeScene
        Tree i is grown, and named, with ``scene.seed + i``.
    count : int
        At most `MAX_COUNT`.
    masks : sequence of (H, W) ndarray of bool, optional
        Real vessels to condition on: tree i on ``masks[i % len(masks)]``. Without any, the scene's preset decides.
    mask_sha256, mask_names : sequence of str, optional
        Hashes and names of the files the masks came from, one a mask, for the record.
    hubs : sequence of (row, col) or None, optional
        Where the vessels of each mask come from, see `univg.sca.find_hub`.
    formats : sequence of {'png', 'json', 'swc'}
        The mask, which is always written, and the tree itself beside it.
    scheduler : str, optional
        Address of a Dask scheduler whose workers can write to `output` under the same name. Processes of this machine
        do the work by default, or this one alone when few trees are missing.
    workers : int, optional
        How many processes of this machine; one a core by default.
    on_progress, should_stop : callable, optional

    Returns
    -------
    BulkSummary

    Raises
    ------
    InputError
        Something given cannot be used, the folder holds trees of other parameters or cannot be written to, or the
        cluster cannot be reached or was lost.
    Cancelled
        When `should_stop` says so; finished trees stay.
    """
    # 1. Check inputs
    _check_whole_number("count", count, 1, MAX_COUNT)
    if workers is not None:
        _check_whole_number("workers", workers, 1, _MAX_WORKERS)
    if scheduler is not None and workers is not None:
        raise InputError("`workers` cannot be given with `scheduler`", fix="The cluster decides how many there are.")
    packed = pack_masks(masks)
    plan = checked_plan(
        output, packed, scene, mask_sha256=mask_sha256, mask_names=mask_names, hubs=hubs, formats=formats
    )

    with sole_writer(plan.folder):
        # 2. Make the folder this plan's, or refuse one that is another's
        manifest = claimed_manifest(plan, count)
        remove_leftovers(plan.folder)

        # 3. See what is finished
        facts = {fact.index: fact for fact in finished_trees(plan, count, on_progress, should_stop)}
        found = len(facts)

        # 4. Grow the others
        missing = [index for index in range(count) if index not in facts]
        clock = StageClock(first_step=found)
        on_progress(ProgressEvent(STAGE, found, count))
        try:
            with closing(_grown(plan, packed, missing, scheduler, workers, should_stop)) as grown:
                for fact in grown:
                    facts[fact.index] = fact
                    on_progress(clock.timed(ProgressEvent(STAGE, len(facts), count)))
        except Cancelled:
            raise Cancelled(f"Stopped with {len(facts)} of {count} trees finished") from None
        finally:
            remove_leftovers(plan.folder)

        # 5. Put on record what is there
        ordered = [facts[index] for index in range(count)]
        digest = hashlib.sha256("".join(fact.pixels_sha256 for fact in ordered).encode()).hexdigest()
        nodes = sum(fact.nodes for fact in ordered)
        complete_manifest(plan, manifest, ordered, nodes=nodes, digest=digest)
    return BulkSummary(plan.folder, count, count - found, found, nodes, digest)


def run_trees_job(project: Project, params: dict, context: JobContext) -> dict:
    """The work of a ``trees`` job: trees in a folder of their own within the project's ``trees``.

    Parameters
    ----------
    project : Project
    params : dict
        ``count``; ``scene`` (as `TreeScene.to_json`); ``folder``, the name of the new folder; optionally ``masks``
        (names of the project's pairs to condition on in turn, none by default), ``formats`` and ``workers``.
    context : JobContext
    """
    scene = TreeScene.from_json(params.get("scene"))
    folder = project.trees_folder / check_stem(str(params.get("folder", "")))
    pairs = [project.support_pair(name) for name in params.get("masks", [])]
    hashes = project.load_support().sha256 if pairs else {}
    summary = generate_trees(
        folder,
        scene,
        count=params.get("count"),
        masks=[pair.mask for pair in pairs],
        mask_sha256=[hashes[f"masks/{pair.name}.png"] for pair in pairs],
        mask_names=[pair.name for pair in pairs],
        hubs=[find_hub(scene.modality, pair.mask, pair.image) for pair in pairs],
        formats=params.get("formats", ("png",)),
        workers=params.get("workers"),
        on_progress=context.on_progress,
        should_stop=context.should_stop,
    )
    return {**summary.to_json(), "folder": folder.relative_to(project.path).as_posix()}


def _check_whole_number(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise InputError(f"`{name}` must be a whole number from {low} to {high}, got {value!r}")


def _grown(
    plan: Plan,
    packed: tuple[PackedMask, ...],
    missing: Sequence[int],
    scheduler: str | None,
    workers: int | None,
    should_stop: ShouldStop,
) -> Iterator[TreeFacts]:
    """Grow the `missing` trees, here or on workers; facts come in the order the trees get finished."""
    if not missing:
        return
    if scheduler is not None or len(missing) >= _IN_PROCESS_BELOW:
        with cluster(scheduler, workers, len(missing)) as client:
            yield from grown_by_workers(client, plan, packed, missing, scheduler, should_stop)
        return
    for index in missing:
        if should_stop():
            raise Cancelled
        yield grow_and_write(plan, packed[index % len(packed)] if packed else None, index)
