import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from univg.engines.backbone import new_scheduler
from univg.engines.config import DiffusionTrainConfig, SamplingConfig
from univg.engines.diffusion import draw_noise, noising_batch, noising_loss, sample_latents, unet_prediction
from univg.errors import Cancelled
from univg.types import Modality

CONFIG = SamplingConfig(size=64, steps=4)


def sample(backbone, seeds=(0,), config=CONFIG, **options):
    tokens = backbone.condition([Modality.OCTA] * len(seeds))
    return sample_latents(unet_prediction(backbone), backbone, tokens, seeds=list(seeds), config=config, **options)


def test_same_seed_same_sample_whatever_the_batch(backbone):
    together = sample(backbone, (3, 4))
    assert torch.allclose(together[1:], sample(backbone, (4,)), atol=1e-4)
    assert torch.equal(sample(backbone, (3,)), sample(backbone, (3,)))
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("solver", ["dpm++", "unipc"])
def test_perfect_prediction_gives_the_picture(backbone, solver):
    """With a U-Net that knows the answer, every solver must find it from any noise."""
    wanted = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    scheduler = new_scheduler()

    def knowing(latents, timesteps, tokens):
        signal = scheduler.alphas_cumprod[timesteps.long()][:, None, None, None]
        noise = (latents - signal.sqrt() * wanted) / (1 - signal).sqrt()
        return signal.sqrt() * noise - (1 - signal).sqrt() * wanted

    config = SamplingConfig(size=64, steps=6, solver=solver)
    found = sample_latents(knowing, backbone, backbone.condition([Modality.OCT]), seeds=[0], config=config)
    assert torch.allclose(found, wanted, atol=0.02)


def test_strength_decides_how_much_of_the_start_remains(backbone):
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    distances = []
    for strength in (0.0, 0.25, 0.5, 1.0):
        config = SamplingConfig(size=64, steps=4, strength=strength)
        distances.append(float((sample(backbone, config=config, start=start) - start).abs().mean()))
    assert distances[0] == 0 and distances == sorted(distances)


def test_sampling_can_be_cancelled(backbone):
    done = []
    with pytest.raises(Cancelled):
        sample(backbone, should_stop=lambda: len(done) >= 2, on_step=lambda step, of: done.append((step, of)))
    assert done == [(1, 4), (2, 4)]


def test_noise_is_the_same_on_every_call():
    assert torch.equal(draw_noise((4, 2, 2), [1, 2])[1], draw_noise((4, 2, 2), [2])[0])


def test_timesteps_cover_the_schedule():
    latents = torch.zeros(8, 4, 4, 4)
    noise, timesteps = noising_batch(latents, new_scheduler(), np.random.default_rng(0))
    assert sorted((timesteps // 125).tolist()) == list(range(8))
    assert noise.shape == latents.shape and abs(float(noise.mean())) < 0.2
    seen = {int(noising_batch(latents, new_scheduler(), np.random.default_rng(s))[1][0]) // 125 for s in range(80)}
    assert seen == set(range(8)), "every sample of a batch meets every noise level"


@pytest.mark.parametrize("gamma", [5.0, float("inf")])
@pytest.mark.parametrize("scheduler", [new_scheduler(), DDPMScheduler(beta_schedule="scaled_linear")])
def test_loss_is_zero_for_the_true_prediction_only(scheduler, gamma):
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 2, 2, generator=generator)
    timesteps = torch.tensor([0, 500, 999])
    velocity = scheduler.config.prediction_type == "v_prediction"
    true = scheduler.get_velocity(latents, noise, timesteps) if velocity else noise

    def loss(predicted):
        return float(
            noising_loss(
                lambda *_: predicted, latents, noise, timesteps, None, scheduler=scheduler, min_snr_gamma=gamma
            )
        )

    assert loss(true) == 0
    for i in range(3):  # every step counts, the last one included
        wrong = true.clone()
        wrong[i] += 1
        assert loss(wrong) > 1e-4


def test_schedule_ends_without_signal():
    assert float(new_scheduler().alphas_cumprod[-1]) < 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 1001},
        {"strength": 1.5},
        {"scale": -1.0},
        {"size": 100},
        {"solver": "euler"},
        {"seed": -1},
    ],
)
def test_sampling_refuses_nonsense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingConfig(**wrong)


def test_training_refuses_nonsense():
    with pytest.raises(ValueError, match="min_snr_gamma"):
        DiffusionTrainConfig(min_snr_gamma=0)
