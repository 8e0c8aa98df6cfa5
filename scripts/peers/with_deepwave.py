"""Deepwave: a C library with a gradient of its own, called from PyTorch."""

import deepwave  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]

VARIANTS = {"store all": 1, "every 10th step": 10}  # interval of the imaging


def build(case, variant):
    torch.set_num_threads(2)
    speed = torch.from_numpy(case.speed())
    options = {
        "grid_spacing": case.spacing,
        "dt": case.dt,
        "source_amplitudes": torch.from_numpy(case.wavelet())[None, None],
        "source_locations": torch.from_numpy(case.source())[None, None],
        "receiver_locations": torch.from_numpy(case.places())[None],
        "accuracy": case.order,
        "pml_width": case.width,
        "pml_freq": case.frequency,
        "max_vel": case.fastest,
        "model_gradient_sampling_interval": VARIANTS[variant],
    }

    def run(speed):
        return deepwave.scalar(speed, **options)[-1][0].T

    def forward():
        with torch.no_grad():
            return run(speed).numpy()

    def gradient():
        leaf = speed.clone().requires_grad_()
        return torch.autograd.grad(run(leaf).square().sum() / 2, leaf)[0].numpy()

    return forward, gradient
