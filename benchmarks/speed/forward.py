"""Share of the machine's bf16 convolution peak that the U-Net reaches, forwards and in a training
step.

    python benchmarks/speed/forward.py [--rounds 5] [--only 32 64] [--out FILE]

The peak is the fastest of several 3x3 convolutions of one layer, measured in the same rounds. FLOPs
are those of `torch.utils.flop_counter` (2 per multiply and add), attention included, whose two
products per block are matrix products here; a training step counts three times the forward pass.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from paired import Report, arguments, paired
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pseudohealthy.networks.precision import for_inference
from pseudohealthy.networks.unet import UNet

# side: (settings, batches)
NETWORKS: dict[int, tuple[dict, tuple[int, ...]]] = {
    32: (
        {"width": 64, "multipliers": (1, 2, 4), "blocks": 2, "attention": {"at": (4,)}},
        (1, 8, 16),
    ),
    64: (
        {"width": 32, "multipliers": (1, 2, 4, 4), "blocks": 1, "attention": {"at": (8,)}},
        (1, 8, 16),
    ),
    # THOR's.
    128: (
        {"width": 128, "multipliers": (1, 2, 2), "blocks": 1, "attention": {"at": (2, 4)}},
        (1, 4),
    ),
    # Wolleb's.
    256: (
        {
            "width": 128,
            "multipliers": (1, 1, 2, 2, 4, 4),
            "blocks": 2,
            "attention": {"at": (16,)},
            "learned_variance": True,
        },
        (1,),
    ),
}
CONVOLUTIONS = (
    (1, 256, 64),
    (4, 256, 64),
    (8, 256, 32),
    (16, 256, 16),
    (1, 128, 128),
    (4, 128, 64),
    (16, 512, 16),
)


def convolution(images: Tensor, weight: Tensor) -> None:
    with torch.no_grad():
        F.conv2d(images, weight, padding=1)


def forward(network: UNet, x: Tensor, t: Tensor) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(x, t)


def step(network: UNet, x: Tensor, t: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(x, t).float().square().mean()
    loss.backward()
    network.zero_grad()


def counted(network: UNet, x: Tensor, t: Tensor) -> float:
    """GFLOP of one forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, t)
    return counter.get_total_flops() / 1e9


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--only", type=int, nargs="+", default=list(NETWORKS))

    given = arguments(__doc__, more=more)
    report = Report("forward", given.out)
    peaks: dict[str, Callable[[], object]] = {}
    gigaflops: dict[str, float] = {}
    for batch, channels, side in CONVOLUTIONS:
        images = (
            torch.randn(batch, channels, side, side)
            .bfloat16()
            .contiguous(memory_format=torch.channels_last)
        )
        weight = (
            torch.randn(channels, channels, 3, 3)
            .bfloat16()
            .contiguous(memory_format=torch.channels_last)
        )
        name = f"convolution {batch} x {channels} x {side} x {side}"
        peaks[name] = partial(convolution, images, weight)
        gigaflops[name] = 2 * 9 * channels**2 * batch * side**2 / 1e9
    for size in given.only:
        settings, batches = NETWORKS[size]
        network, kept = UNet(**settings), UNet(**settings).requires_grad_(False)
        for_inference(kept, torch.bfloat16)  # as detection has it
        for batch in batches:
            x, t = torch.randn(batch, 1, size, size), torch.randint(0, 1000, (batch,))
            work = counted(network, x, t)
            runs = {**peaks, "forward": partial(forward, kept, x, t)}
            if batch == max(batches):
                runs["step"] = partial(step, network, x, t)
            times, foreign = paired(runs, given.rounds)
            peak, where = max((gigaflops[name] / times[name], name) for name in peaks)
            for kind, times_work in (("forward", 1), ("step", 3)):
                if kind in times:
                    speed = times_work * work / times[kind]
                    report.add(
                        f"U-Net {size} px, batch {batch}, {kind}",
                        100 * speed / peak,
                        "% peak",
                        foreign,
                        ms_per_image=1000 * times[kind] / batch,
                        gflops=speed,
                        peak=peak,
                        at=where,
                    )


if __name__ == "__main__":
    main()
