"""What does the stability probe cost, compared with a loop over images that follows the papers' definition?"""

from functools import partial

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread
from nin.model.data import as_images
from nin.probes.stability import deform, displacement_field, sensitivities, temperature
from studies.images import first_at_hand

IMAGES, DRAWS, ROUNDS = 500, 4, 7
C = 3


def run() -> str:
    """Two tables: fields and warp of 500 images; sensitivities of a network of six layers on them."""
    name, data = first_at_hand(("fashion_mnist", "mnist"), n_train=2, n_test=IMAGES)
    x = as_images(data.x_test)
    T = temperature(1, x.shape[-1], C)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    images = x[:, 0].double().numpy()

    def batched() -> None:
        deform(x, displacement_field(x.shape[-1], C, T, IMAGES, generator=generator))

    warp = in_turn(
        {
            "torch": partial(seconds, partial(_torch_loop, x, T)),
            "scipy": partial(seconds, partial(_scipy_loop, images, T, rng)),
            "batched": partial(seconds, batched),
        },
        ROUNDS,
    )
    per_image = {key: 1e6 * np.median(values) / IMAGES for key, values in warp.items()}
    model = _network()
    probe = in_turn(
        {
            "loop": partial(seconds, partial(_sensitivities, model, x, T, rng)),
            "batched": partial(seconds, partial(sensitivities, model, x, draws=DRAWS)),
        },
        3,
    )
    columns = ("", "batched", "loop over images", "loop / batched", "goal")
    rows = (
        *(
            (f"fields and warp, an image; {loop}", f"{per_image['batched']:.1f} us", f"{per_image[loop]:.0f} us",
             spread(warp[loop] / warp["batched"], 0), "<= 40 us, ratio >= 8")
            for loop in ("torch", "scipy")
        ),
        ("sensitivities, 13 outputs of 6 layers", *(f"{np.median(probe[key]):.2f} s" for key in ("batched", "loop")),
         spread(probe["loop"] / probe["batched"], 1), "<= 3 s"),
    )  # fmt: skip
    head = f"{IMAGES} images of 28 x 28 ({name}), delta = 1, c = {C}, {DRAWS} deformations and noises each.\n\n"
    return head + table(columns, rows)


def _torch_loop(images: Tensor, T: float) -> Tensor:
    """One image after the other, each step as in the definition."""
    n = images.shape[-1]
    warped = torch.empty_like(images)
    for k, image in enumerate(images):
        order, u = torch.arange(1, C + 1), torch.linspace(0, 1, n)
        square = order[:, None] ** 2 + order**2
        coefficients = torch.where(square < (C + 0.5) ** 2, (T / square).sqrt(), 0.0) * torch.randn(2, C, C)
        sine = torch.sin(torch.pi * order[:, None] * u)
        tau = n * torch.einsum("kij,iu,jv->kuv", coefficients, sine, sine)
        row, column = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        grid = torch.stack([column - tau[1], row - tau[0]], -1) * 2 / (n - 1) - 1
        warped[k] = F.grid_sample(image[None], grid[None], padding_mode="border", align_corners=True)[0]
    return warped


def _scipy_loop(images: np.ndarray, T: float, rng: np.random.Generator) -> np.ndarray:
    """The same in numpy; whatever all images share is computed before the loop."""
    n = images.shape[-1]
    order = np.arange(1, C + 1)
    square = order[:, None] ** 2 + order**2
    std = np.where(square < (C + 0.5) ** 2, np.sqrt(T / square), 0)
    sine = np.sin(np.pi * np.outer(order, np.linspace(0, 1, n)))
    rows, columns = np.mgrid[:n, :n]
    warped = np.empty_like(images)
    for k, image in enumerate(images):
        tau = [n * sine.T @ (std * rng.standard_normal((C, C))) @ sine for _ in range(2)]
        warped[k] = ndimage.map_coordinates(image, [rows - tau[0], columns - tau[1]], order=1, mode="nearest")
    return warped


def _network() -> nn.Sequential:
    """Five convolutions of 32 and 64 channels and a linear layer."""
    layers, channels = [], 1
    for width, stride in ((32, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        layers += [nn.Conv2d(channels, width, 3, stride=stride, padding=1), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


@torch.no_grad()
def _sensitivities(model: nn.Sequential, x: Tensor, T: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """D and G as in their definition: image by image through the network, then all pairs at each layer."""

    def outputs(image: Tensor) -> list[Tensor]:
        seen, values = [], image[None]
        for layer in model:
            values = layer(values)
            seen.append(values.flatten())
        return seen

    changes = np.zeros((2, len(model)))
    clean = [outputs(image) for image in x]
    for _ in range(DRAWS):
        moved = torch.from_numpy(_scipy_loop(x[:, 0].numpy(), T, rng))[:, None]
        for image, deformed, before in zip(x, moved, clean, strict=True):
            eta = torch.randn_like(image)
            noisy = image + eta * (deformed - image).norm() / eta.norm()
            for place, changed in enumerate((deformed, noisy)):
                after = outputs(changed)
                changes[place] += [(a - b).square().sum().item() for a, b in zip(after, before, strict=True)]
    pairs = []
    for values in map(torch.stack, zip(*clean, strict=True)):
        pairs.append(torch.cdist(values, values).square().mean().item())
    return [tuple(pair) for pair in (changes / (DRAWS * len(x)) / pairs).T]
