"""The networks and the training loop of Ray's GAN example, for machines without Ray.

Reimplements `ray.tune.examples.pbt_dcgan_mnist` (ray 2.60, Apache 2.0): DCGAN at 32 px, width 32, batch norm
in both networks, two forward and two backward passes of D, four numbers read in each step. Its Inception
Score of every batch and its printing are left out. At 64 px both networks have one more layer, twice as wide.
`python benchmarks/example_gan.py` compares the losses of four steps with the original.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

NOISE, WIDTH = 100, 32


def generator(size: int) -> nn.Sequential:
    """z (N,100,1,1) -> images (N,1,size,size) in [-1, 1]; size 32 or 64."""
    wide = WIDTH * size // 8
    layers: list[nn.Module] = [
        nn.ConvTranspose2d(NOISE, wide, 4, 1, 0, bias=False),
        nn.BatchNorm2d(wide),
        nn.ReLU(True),
    ]
    while wide > WIDTH:
        layers += [
            nn.ConvTranspose2d(wide, wide // 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(wide // 2),
            nn.ReLU(True),
        ]
        wide //= 2
    return nn.Sequential(*layers, nn.ConvTranspose2d(wide, 1, 4, 2, 1, bias=False), nn.Tanh())


def discriminator(size: int) -> nn.Sequential:
    """Images (N,1,size,size) -> probabilities (N,1,1,1); size 32 or 64."""
    layers: list[nn.Module] = [nn.Conv2d(1, WIDTH, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    width = WIDTH
    while width < WIDTH * size // 8:
        layers += [
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        width *= 2
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 0, bias=False), nn.Sigmoid())


def draw_weights(module: nn.Module) -> None:
    """The example's initialisation, for `Module.apply`."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def pair(size: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The example's G and D, initialised."""
    torch.manual_seed(0)
    made = generator(size), discriminator(size)
    for net in made:
        net.apply(draw_weights)
    return made


def train(
    net_d: nn.Module,
    net_g: nn.Module,
    adam_g: torch.optim.Optimizer,
    adam_d: torch.optim.Optimizer,
    batches: Iterable[Tensor],
    device: torch.device,
) -> tuple[float, float]:
    """The example's `train_func` over batches (N,1,H,W); returns the last losses of G and D."""
    criterion = nn.BCELoss()
    for batch in batches:
        net_d.zero_grad()
        real = batch.to(device)
        label = torch.full((len(real),), 1, dtype=torch.float, device=device)
        output = net_d(real).view(-1)
        loss_real = criterion(output, label)
        torch.autograd.backward(loss_real)
        output.mean().item()
        fake = net_g(torch.randn(len(real), NOISE, 1, 1, device=device))
        label.fill_(0)
        output = net_d(fake.detach()).view(-1)
        loss_fake = criterion(output, label)
        torch.autograd.backward(loss_fake)
        output.mean().item()
        loss_d = loss_real + loss_fake
        adam_d.step()
        net_g.zero_grad()
        label.fill_(1)
        output = net_d(fake).view(-1)
        loss_g = criterion(output, label)
        torch.autograd.backward(loss_g)
        output.mean().item()
        adam_g.step()
    return loss_g.item(), loss_d.item()


def main() -> None:
    """Compare the losses after four steps with the original, from the same weights and random state."""
    from ray.tune.examples.pbt_dcgan_mnist import common

    common.inception_score = lambda fake, model: (0.0, 0.0)
    common.train_iterations_per_step = 4
    found = []
    for original in (True, False):
        net_g, net_d = (common.Generator(), common.Discriminator()) if original else pair(32)
        torch.manual_seed(0)
        for net in (net_g, net_d):
            net.apply(common.weights_init if original else draw_weights)
        adam_g, adam_d = (
            torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in (net_g, net_d)
        )
        batches = [torch.rand(64, 1, 32, 32) * 2 - 1 for _ in range(4)]
        if original:
            loader = [(batch,) for batch in batches]
            args = (loader, 1, torch.device("cpu"), None)
            found.append(common.train_func(net_d, net_g, adam_g, adam_d, nn.BCELoss(), *args)[:2])
        else:
            found.append(train(net_d, net_g, adam_g, adam_d, batches, torch.device("cpu")))
    print(f"original {found[0]}, reimplementation {found[1]}")
    if found[0] != found[1]:
        raise SystemExit("the losses differ from those of the original")


if __name__ == "__main__":
    main()
