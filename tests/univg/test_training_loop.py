import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from univg.errors import Cancelled, InputError
from univg.training import parallel
from univg.training.average import update_average
from univg.training.checkpoint import CheckpointPace, TrainingState, load_state, save_state
from univg.training.device import autocast
from univg.training.loop import NO_LOOK, Look, OptimizationConfig, optimize
from univg.training.schedule import learning_rate_at
from univg.training.seeding import seeded

CONFIG = OptimizationConfig(
    steps=8, batch_size=4, learning_rate=0.05, ema_decay=0.9, precision="float32", warmup_steps=2
)


def new_layer():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def batches_from(first):
    for step in itertools.count(first):
        inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        yield inputs, inputs.sum(1, keepdim=True)


def run(layer, **options):
    def loss_of(inputs, wanted):
        return (layer(inputs) - wanted).square().mean()

    optimize(
        dict(layer.named_parameters()),
        loss_of,
        options.pop("batches", batches_from),
        config=replace(CONFIG, ema_decay=options.pop("ema_decay", CONFIG.ema_decay)),
        stage="x",
        **options,
    )
    return layer


def test_training_approaches_the_solution():
    losses = []
    trained = run(new_layer(), on_progress=lambda event: losses.append(event.metrics["loss"]))
    assert len(losses) == 8
    assert (trained.weight - 1).square().sum() < (new_layer().weight - 1).square().sum()


@pytest.mark.parametrize("stop_after", [0, 1, 4, 7])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, stop_after):
    steps = []
    with pytest.raises(Cancelled):
        run(
            new_layer(),
            folder=tmp_path,
            fingerprint="a",
            on_progress=steps.append,
            should_stop=lambda: len(steps) >= stop_after,
        )
    resumed = run(new_layer(), folder=tmp_path, fingerprint="a")
    assert torch.equal(resumed.weight, run(new_layer()).weight)


def test_finished_run_is_not_repeated(tmp_path):
    done = run(new_layer(), folder=tmp_path, fingerprint="a")
    events = []
    again = run(new_layer(), folder=tmp_path, fingerprint="a", on_progress=events.append)
    assert not events and torch.equal(done.weight, again.weight)


def test_checkpoints_that_take_long_are_written_seldom(monkeypatch):
    now, saved_at = [0.0], []
    monkeypatch.setattr("univg.training.checkpoint.time.monotonic", lambda: now[0])

    def save():
        now[0] += 6
        saved_at.append(now[0])

    pace = CheckpointPace(save, 10)
    while now[0] < 300:
        pace.save_if_due()
        now[0] += 1
    assert saved_at == [16, 142, 268], "after 10 s, then 120 s after each that took 6 s"


def test_a_checkpoint_comes_back_and_leaves_nothing_beside_it(tmp_path):
    state = TrainingState(step=3, tensors={"weights": {"a": torch.arange(6.0).reshape(2, 3).T}}, fingerprint="a")
    save_state(state, tmp_path)
    again = load_state(tmp_path, "a")
    assert again.step == 3 and torch.equal(again.tensors["weights"]["a"], state.tensors["weights"]["a"])
    (tmp_path / "other").touch()
    assert [file.name for file in tmp_path.iterdir() if file.name != "other"] == ["state.safetensors"]
    assert (tmp_path / "state.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="looks at what this process has mapped")
def test_a_checkpoint_that_was_read_is_not_kept_open(tmp_path):
    state = TrainingState(step=3, tensors={"weights": {"a": torch.arange(6.0)}}, fingerprint="a")
    save_state(state, tmp_path)
    again = load_state(tmp_path, "a")
    assert str(tmp_path) not in Path("/proc/self/maps").read_text() and len(again.tensors["weights"]["a"]) == 6


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    run(new_layer(), folder=tmp_path, fingerprint="a")
    before = (tmp_path / "state.safetensors").read_bytes()

    def fill_up(tensors, file, metadata):
        Path(file).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", fill_up)
    with pytest.raises(InputError, match="disk is full"):
        save_state(TrainingState(step=1, tensors={}), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_seeding_leaves_other_random_numbers_alone(monkeypatch):
    torch.manual_seed(7)
    expected = nn.Linear(3, 2).weight
    for card in (torch.cuda, torch.mps, torch.xpu):
        monkeypatch.setattr(card, "manual_seed_all" if hasattr(card, "manual_seed_all") else "manual_seed", pytest.fail)
    before = torch.get_rng_state()
    with seeded(7):
        drawn = nn.Linear(3, 2).weight
    assert torch.equal(drawn, expected) and torch.equal(torch.get_rng_state(), before)


def test_checkpoint_of_another_run_is_refused(tmp_path):
    run(new_layer(), folder=tmp_path, fingerprint="a")
    with pytest.raises(InputError, match="other images or settings"):
        run(new_layer(), folder=tmp_path, fingerprint="b")


def test_looking_at_the_average_changes_nothing():
    seen = []

    def look(step):
        seen.append(step)
        return Look({"score": 1.0})

    looked = run(new_layer(), look=look, look_every=3)
    assert seen == [3, 6, 8] and torch.equal(looked.weight, run(new_layer()).weight)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_look_that_memory_is_too_short_for_is_left_out(decay):
    layer, messages, looks = new_layer(), [], []

    def look(step):
        looks.append(layer.weight.detach().clone())
        raise torch.OutOfMemoryError("CUDA")

    looked = run(
        layer,
        ema_decay=decay,
        look=look,
        look_every=3,
        on_progress=lambda event: messages.append(event.message),
    )
    assert messages == ["", "", NO_LOOK, "", "", NO_LOOK, "", NO_LOOK] and len(looks) == 3
    assert torch.equal(looked.weight, run(new_layer(), ema_decay=decay).weight)


def test_other_errors_of_a_look_end_the_run_and_leave_the_weights_in_place():
    layer, seen = new_layer(), []

    def look(step):
        seen.append(layer.weight.detach().clone())
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run(layer, look=look, look_every=3)
    assert not torch.equal(seen[0], layer.weight), "the average is in their place during a look alone"


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_an_average_is_kept_only_where_there_is_one(tmp_path, decay):
    steps = []
    with pytest.raises(Cancelled):
        run(
            new_layer(),
            ema_decay=decay,
            folder=tmp_path,
            on_progress=steps.append,
            should_stop=lambda: len(steps) >= 4,
        )
    state = load_state(tmp_path, "")
    assert set(state.tensors) == {"weights", "optimizer"} | ({"average"} if decay else set())
    if not decay:  # as earlier versions wrote it
        state.tensors["average"] = {name: value + 9 for name, value in state.tensors["weights"].items()}
        save_state(state, tmp_path)
    resumed = run(new_layer(), ema_decay=decay, folder=tmp_path)
    assert torch.equal(resumed.weight, run(new_layer(), ema_decay=decay).weight)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("MPS backend out of memory (MPS …)")])
def test_a_batch_that_does_not_fit_is_computed_in_parts(error):
    layer, sizes = new_layer(), []

    def loss_of(inputs, wanted):
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise error
        return (layer(inputs) - wanted).square().mean()

    messages = []
    optimize(
        dict(layer.named_parameters()),
        loss_of,
        batches_from,
        config=CONFIG,
        stage="x",
        on_progress=lambda event: messages.append(event.message),
    )
    assert sizes[0] == 4 and set(sizes[1:]) == {2} and any(messages)
    assert torch.allclose(layer.weight, run(new_layer()).weight, atol=1e-6)


def test_other_errors_of_a_step_are_not_taken_for_want_of_memory():
    def broken(inputs, wanted):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        optimize(dict(new_layer().named_parameters()), broken, batches_from, config=CONFIG, stage="x")


def test_builds_without_onednn_are_not_asked_for_bfloat16(monkeypatch):
    def missing():
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_is_mkldnn_bf16_supported'")

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", missing)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not autocast(torch.device("cpu"), "auto")._enabled


def test_loss_that_is_no_number_stops_the_run():
    def broken(first):
        yield torch.full((4, 3), float("nan")), torch.zeros(4, 1)

    with pytest.raises(FloatingPointError, match="learning_rate"):
        run(new_layer(), batches=broken)


def test_average_without_decay_is_the_last_value():
    kept, new = {"a": torch.zeros(2), "count": torch.tensor(1)}, {"a": torch.ones(2), "count": torch.tensor(5)}
    update_average(kept, new, 0.0, 3)
    assert torch.equal(kept["a"], torch.ones(2)) and kept["count"] == 5


def test_rate_rises_then_falls():
    rates = [learning_rate_at(CONFIG, step) for step in range(8)]
    assert rates[0] < rates[1] and rates[-1] < rates[1] and min(rates) > 0


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"learning_rate": 0.0}, {"ema_decay": 1.0}, {"schedule": "steep"}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OptimizationConfig(**{"steps": 1, **wrong})


TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
from tests.univg.test_training_loop import CONFIG, new_layer, run
from univg.training import parallel
from univg.training.device import resolve_device

resolve_device("cpu")
assert parallel.process_count() == 2
events, folder = [], Path(sys.argv[1])
layer = run(new_layer(), folder=folder, fingerprint="a", on_progress=events.append)
assert bool(events) == parallel.is_first()
torch.save([weight.detach() for weight in layer.parameters()], folder / f"rank{torch.distributed.get_rank()}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(script), str(tmp_path)], env=environment, check=True, timeout=300)
    alone = list(run(new_layer()).parameters())
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for one, other, expected in zip(first, second, alone, strict=True):
        assert torch.equal(one, other)
        assert torch.allclose(one, expected.detach(), atol=1e-5)
    assert (tmp_path / "state.safetensors").is_file()


def test_fewer_samples_than_processes_are_refused(monkeypatch):
    monkeypatch.setattr(parallel, "process_count", lambda: 3)
    with pytest.raises(ValueError, match="batch_size"):
        parallel.own_share((torch.zeros(2, 1),))
