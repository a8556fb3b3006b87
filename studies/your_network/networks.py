"""Two small networks of the kinds that people train, a residual network and a character transformer, and a text."""

import torch
from jaxtyping import Float, Int
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """A residual network with batch norm for small grey images: stem, one block for each width, mean, linear head."""

    def __init__(self, classes: int = 10, widths: tuple[int, ...] = (16, 32)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]))
        ends = zip((widths[0], *widths), widths, strict=False)
        self.blocks = nn.Sequential(*(ResidualBlock(before, after) for before, after in ends))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Float[Tensor, "n pixels"]) -> Float[Tensor, "n classes"]:
        """Logits of square images, as rows of pixels."""
        side = round(x.shape[1] ** 0.5)
        x = self.stem(x.unflatten(1, (1, side, side))).relu()
        return self.head(self.blocks(x).mean((2, 3)))


class ResidualBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), at half the resolution where the width grows."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "n before h w"]) -> Float[Tensor, "n after p q"]:
        inner = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (self.shortcut(x) + inner).relu()


class Transformer(nn.Module):
    """A small GPT: characters and positions, causal attention and MLPs with layer norm before each, linear head.

    Raises ValueError for a width that is no multiple of the number of heads.
    """

    def __init__(self, characters: int, context: int = 16, width: int = 32, heads: int = 2, depth: int = 2) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} must be a multiple of heads={heads}.")
        self.embed = nn.Embedding(characters, width)
        self.position = nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters)

    def forward(self, x: Int[Tensor, "n t"]) -> Float[Tensor, "n t characters"]:
        """Logits of the character after each place."""
        return self.read(self.embed(x))

    def read(self, embedded: Float[Tensor, "n t width"]) -> Float[Tensor, "n t characters"]:
        """The same for characters that are embedded already."""
        return self.head(self.norm(self.blocks(embedded + self.position[: embedded.shape[1]])))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), and then the same with an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "n t width"]) -> Float[Tensor, "n t width"]:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def characters(text: str, context: int, stride: int = 1) -> tuple[Int[Tensor, "n t"], Int[Tensor, "n t"], str]:
    """Windows of a text as numbers, the characters that follow each place, and the alphabet.

    Raises ValueError for a text that is not longer than the context.
    """
    if len(text) <= context:
        raise ValueError(f"text of {len(text)} characters must be longer than context={context}.")
    alphabet = "".join(sorted(set(text)))
    numbers = torch.tensor([alphabet.index(c) for c in text])
    windows = numbers.unfold(0, context + 1, stride)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous(), alphabet


def mean_over_places(logits: Float[Tensor, "n t characters"], targets: Int[Tensor, "n t"]) -> Float[Tensor, ""]:
    """The loss of a language model: the mean cross-entropy of every next character."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def descriptions() -> str:
    """The texts that describe five data sets in scikit-learn: 14,000 characters without a download."""
    names = ("digits", "iris", "wine", "diabetes", "breast_cancer")
    return "\n".join(getattr(datasets, f"load_{name}")().DESCR for name in names)
