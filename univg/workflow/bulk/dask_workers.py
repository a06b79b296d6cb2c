"""Work handed out with Dask, to processes of this machine or somebody's cluster: trees, and pairs."""

from __future__ import annotations

import functools
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2

from univg import __version__
from univg.errors import Cancelled, InputError
from univg.progress import ShouldStop
from univg.workflow.bulk.manifest import readable_manifest
from univg.workflow.bulk.plan import PackedMask, Plan, TreeFacts, grow_and_write

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

_IN_FLIGHT_PER_THREAD = 4
_ALLOWED_DEATHS = 3
_POLL_SECONDS = 0.02
_CONNECT_SECONDS = 10.0
_FIRST_WORKER_SECONDS = 30.0
_LOOPBACK = "127.0.0.1"


class Refusal(NamedTuple):
    """An `InputError` on its way back from a worker; a raised one would be logged with names of the user's files."""

    problem: str
    path: Path | None
    fix: str


@contextmanager
def cluster(scheduler: str | None, workers: int | None, tasks: int) -> Iterator[Client]:
    """A client of the cluster at `scheduler`, or of processes of this machine that end with the block."""
    from dask.system import CPU_COUNT
    from distributed import Client
    from distributed.comm import CommClosedError, get_address_host, normalize_address
    from distributed.utils import silence_logging_cmgr

    if scheduler is None:
        count = min(workers or CPU_COUNT, tasks)
        with _local_cluster(count) as cluster, Client(cluster, set_as_default=False) as client:
            yield client
        return
    try:
        get_address_host(normalize_address(scheduler))  # a client tries in vain for long where there is no address
        client = Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler can be reached at {scheduler!r}",
            fix="Check the address; `dask scheduler` starts one and prints it.",
        ) from error
    try:
        with silence_logging_cmgr(logging.CRITICAL), client:
            yield client
    except CommClosedError as error:
        raise _connection_lost() from error


@contextmanager
def _local_cluster(workers: int) -> Iterator[LocalCluster]:
    """Worker processes of one thread each, which nobody outside this machine can reach."""
    import dask
    from distributed import LocalCluster

    with TemporaryDirectory(prefix="univg-") as scratch:
        settings = {"distributed.scheduler.http.routes": [], "temporary-directory": scratch}
        with dask.config.set(settings), _interrupts_held_back():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host=_LOOPBACK,
                dashboard_address=None,
                # Even without a dashboard the scheduler answers HTTP, by default at a port that others may use.
                scheduler_kwargs={"dashboard_address": f"{_LOOPBACK}:0", "allowed_failures": _ALLOWED_DEATHS},
                silence_logs=logging.CRITICAL,
            )
        with cluster:
            yield cluster


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes started from here on do not get the Ctrl-C that a terminal sends to all: this one stops them in order.

    Threads and processes inherit what their maker holds back.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start would undo this in the thread that starts processes
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def grown_by_workers(
    client: Client,
    plan: Plan,
    packed: tuple[PackedMask, ...],
    missing: Sequence[int],
    scheduler: str | None,
    should_stop: ShouldStop,
) -> Iterator[TreeFacts]:
    """The facts of the `missing` trees, in the order they get finished."""
    if scheduler is not None:
        check_workers(client, should_stop)
    # Results of tasks rather than scattered data: those are lost with the worker that holds them, these are remade.
    shared_plan = client.submit(_itself, plan, pure=False)
    shared_masks = [client.submit(_itself, mask, pure=False) for mask in packed] or [None]

    def submit(index: int) -> Future:
        return client.submit(_work, shared_plan, shared_masks[index % len(shared_masks)], index, pure=False)

    yield from results_of(client, submit, missing, what="tree", folder=plan.folder, should_stop=should_stop)


def results_of(
    client: Client,
    submit: Callable[[int], Future],
    missing: Sequence[int],
    *,
    what: str,
    folder: Path,
    should_stop: ShouldStop,
) -> Iterator[Any]:
    """Hand out `missing` a few at a time, so that memory does not grow with their number, and yield what comes back.

    Parameters
    ----------
    client : Client
    submit : callable
        Gets one of `missing`; its task returns a result or a `Refusal`.
    missing : sequence of int
    what : str
        What a task makes, as errors call it.
    folder : Path
        Where it goes.
    should_stop : callable
    """
    from distributed import as_completed

    waiting = iter(missing)
    done = as_completed(loop=client.loop, with_results=True, raise_errors=False)
    futures = set()
    try:
        while True:
            room = max(_IN_FLIGHT_PER_THREAD * sum(client.nthreads().values()), 1) - len(futures)
            for index in islice(waiting, max(room, 0)):
                future = submit(index)
                futures.add(future)
                done.add(future)
            if not futures:
                return
            while not done.has_ready():
                if should_stop():
                    raise Cancelled
                time.sleep(_POLL_SECONDS)
            for future, result in done.next_batch(block=False):
                futures.discard(future)
                yield _received(future.status, result, what, folder)
    finally:
        with suppress(OSError):  # a scheduler that is gone has forgotten them anyway
            client.cancel(list(futures))


def _itself(value: Any) -> Any:
    return value


def _work(plan: Plan, packed: PackedMask | None, index: int) -> TreeFacts | Refusal:
    """One task: what runs on a worker."""
    cv2.setNumThreads(1)  # every core has a worker of its own
    try:
        _check_folder_is_shared(plan.folder, plan.key)
        return grow_and_write(plan, packed, index)
    except InputError as error:
        return Refusal(error.problem, error.path, error.fix)


@functools.lru_cache(maxsize=16)
def _check_folder_is_shared(folder: Path, key: str) -> None:
    """Raise unless this process sees the manifest that the process in charge has written."""
    manifest = readable_manifest(folder)
    if manifest is None or manifest.get("parameters_sha256") != key:
        raise InputError(
            "A worker does not see the output folder",
            path=folder,
            fix="Choose a folder that all workers reach under this name, on a network drive for example.",
        )


def _received(status: str, result: Any, what: str, folder: Path) -> Any:
    """The result of a task, or the error it stands for."""
    from distributed import KilledWorker

    if isinstance(result, Refusal):
        raise InputError(result.problem, path=result.path, fix=result.fix)
    error = result[1] if status == "error" else result
    if not isinstance(error, BaseException):
        return result
    if isinstance(error, KilledWorker):
        raise InputError(
            f"Worker processes ended again and again while making the same {what}, most likely for lack of memory",
            path=folder,
            fix=f"Use fewer workers or a smaller size, then repeat the command; each finished {what} is kept.",
        ) from error
    if isinstance(error, CancelledError):
        raise _connection_lost() from error
    raise error


def _connection_lost() -> InputError:
    return InputError(
        "The connection to the Dask scheduler was lost",
        fix="Repeat the command when it is back; what is finished is kept.",
    )


def check_workers(client: Client, should_stop: ShouldStop) -> None:
    """Wait for the first worker, and raise unless all that are there, and the scheduler, run this version of UniVG."""
    deadline = time.monotonic() + _FIRST_WORKER_SECONDS
    while not client.nthreads():
        if should_stop():
            raise Cancelled
        if time.monotonic() > deadline:
            raise InputError(
                "The Dask scheduler has no worker", fix="Start some with `dask worker ADDRESS --nthreads 1`."
            )
        time.sleep(_POLL_SECONDS)
    fix = f"Install version {__version__} on every worker and on the scheduler."
    try:
        versions = {client.run_on_scheduler(_version), *client.run(_version).values()}
    except Exception as error:
        raise InputError(f"This cluster cannot run UniVG: {error}", fix=fix) from error
    if versions != {__version__}:
        raise InputError(f"This cluster runs UniVG {', '.join(sorted(versions))}", fix=fix)


def _version() -> str:
    return __version__
