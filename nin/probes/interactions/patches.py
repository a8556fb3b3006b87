"""The pixels that make up the n variables of an image."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nin.probes.interactions.games import LARGEST
from nin.support.arguments import check_count


def foreground_patches(
    x: Float[Tensor, "..."], n: int = 10, *, size: int = 3, baseline: Float[Tensor, "..."] | float = 0.0
) -> Bool[Tensor, "n ..."]:
    """The n squares of size x size pixels where one image differs most from the baseline, by sum (x - baseline)^2.

    x      (side, side), (channels, height, width), or a row of side^2 pixels; a patch covers all channels
    n      10, and size 3: as in arXiv 2409.08712 on MNIST. The choice of the largest change as "foreground" is ours
    The squares lie on a grid centred in the image and are returned in the order of the grid.
    Raises ValueError for a row whose length is not a square, for n > 20, and if the grid has fewer than n squares.
    """
    check_count("n", n)
    check_count("size", size)
    if n > LARGEST:
        raise ValueError(f"n={n} variables have 2^{n} masked inputs; at most {LARGEST}.")
    image = x
    if x.dim() == 1:
        side = math.isqrt(len(x))
        if side * side != len(x):
            raise ValueError(
                f"x of {len(x)} entries is not a row of a square image; give patches=, boolean (n, {len(x)})."
            )
        image = x.view(side, side)
    height, width = image.shape[-2:]
    rows, columns = height // size, width // size
    if rows * columns < n:
        raise ValueError(
            f"n={n} patches of size={size} do not fit into an image of {height} x {width}: "
            f"there is room for {rows * columns}. Use smaller or fewer patches."
        )
    change = (x - baseline).square().view(image.shape)
    change = change.reshape(-1, height, width).sum(0)  # (height, width)
    top, left = (height - rows * size) // 2, (width - columns * size) // 2
    inner = change[top : top + rows * size, left : left + columns * size]
    tiles = inner.unflatten(0, (rows, size)).unflatten(2, (columns, size))  # (rows, size, columns, size)
    mass = tiles.sum((1, 3)).flatten()  # (rows * columns,)
    chosen = mass.argsort(descending=True, stable=True)[:n].sort().values
    patches = torch.zeros(n, height, width, dtype=torch.bool)
    for patch, place in zip(patches, chosen.tolist(), strict=True):
        row, column = top + place // columns * size, left + place % columns * size
        patch[row : row + size, column : column + size] = True
    wide = patches.view(n, *(1,) * (image.dim() - 2), height, width).expand(n, *image.shape)
    return wide.reshape(n, *x.shape)
