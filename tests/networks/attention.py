"""Transformers in small: for images, decoders in the manner of GPT-2 and Llama, and BERT and T5 with two inputs."""

from dataclasses import dataclass

import torch
from kinds import Kind, seeded, tokens, values
from torch import Tensor, nn
from torch.nn import functional as F

Y = torch.arange(8) % 3
WORDS = 6
IDS, NEXT = tokens(8, 4, vocabulary=WORDS), tokens(8, 4, vocabulary=WORDS, seed=1)


@dataclass
class Output:
    """What models of Hugging Face return."""

    logits: Tensor


def of_logits(model: nn.Module, x: dict[str, Tensor]) -> Tensor:
    return model(**x).logits


class Conv1D(nn.Module):
    """The linear layer of GPT-2 in Hugging Face's transformers: weight (in, out)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.size()[:-1], self.nf)


class ViT(nn.Module):
    """nn.TransformerEncoder on patches with a class token, pre-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(2, 4, 3, stride=3), nn.Parameter(torch.zeros(1, 1, 4))
        self.place = nn.Parameter(torch.zeros(1, 5, 4))
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patch(x).flatten(2).mT  # (n, patches, channels)
        h = torch.cat([self.token.expand(len(h), -1, -1), h], 1) + self.place
        return self.head(self.encoder(h)[:, 0])


class GPTBlock(nn.Module):
    """x + attention(norm x), then + mlp(norm x), in Conv1D layers."""

    def __init__(self, d: int = 4, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.c_attn, self.c_proj = Conv1D(3 * d, d), Conv1D(d, d)
        self.c_fc, self.c_out = Conv1D(6, d), Conv1D(d, 6)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.c_attn(self.ln_1(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.c_proj(mixed))
        return x + self.dropout(self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh")))


class GPT2(nn.Module):
    """Token and place embeddings, two blocks, a head tied to the embedding: logits (n, tokens, words)."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, 4), nn.Embedding(4, 4)
        self.h, self.ln_f = nn.ModuleList([GPTBlock(), GPTBlock()]), nn.LayerNorm(4)
        self.lm_head = nn.Linear(4, WORDS, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        h = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            h = block(h)
        return self.lm_head(self.ln_f(h))


class RMSNorm(nn.Module):
    """x w / sqrt(mean x^2)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class LlamaBlock(nn.Module):
    """RMSNorm, rotary attention with two heads that share their keys and values, a gated MLP."""

    def __init__(self, d: int = 4) -> None:
        super().__init__()
        self.input_norm, self.post_norm = RMSNorm(d), RMSNorm(d)
        self.q_proj, self.o_proj = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        self.k_proj, self.v_proj = nn.Linear(d, d // 2, bias=False), nn.Linear(d, d // 2, bias=False)
        self.gate_proj, self.up_proj = nn.Linear(d, 6, bias=False), nn.Linear(d, 6, bias=False)
        self.down_proj = nn.Linear(6, d, bias=False)
        self.register_buffer("frequency", torch.tensor([1.0]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.input_norm(x)
        q, k, v = (proj(h).unflatten(-1, (-1, 2)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        angle = torch.arange(x.shape[1]).to(x)[:, None] * self.frequency  # (tokens, pairs)
        q, k = (self._turn(part, angle) for part in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o_proj(mixed.transpose(1, 2).flatten(2))
        h = self.post_norm(x)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))

    def _turn(self, x: Tensor, angle: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class Llama(nn.Module):
    """Logits (n, tokens, words)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens, self.layers = nn.Embedding(WORDS, 4), nn.ModuleList([LlamaBlock(), LlamaBlock()])
        self.norm, self.lm_head = RMSNorm(4), nn.Linear(4, WORDS, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed_tokens(ids)
        for layer in self.layers:
            h = layer(h)
        return self.lm_head(self.norm(h))


class Bert(nn.Module):
    """An encoder with a padding mask, read from the first token; returns a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 4, padding_idx=0)
        self.query, self.key, self.value = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.dense, self.norm, self.classifier = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Output:
        h = self.words(input_ids)
        q, k, v = (part(h).unflatten(-1, (2, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        allowed = attention_mask.bool()[:, None, None, :]  # (n, heads, queries, keys)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed).transpose(1, 2).flatten(2)
        h = self.norm(h + F.gelu(self.dense(mixed)))
        return Output(self.classifier(h[:, 0]))


class T5(nn.Module):
    """An encoder and a decoder with one embedding and a relative bias; two inputs, logits (n, tokens, words)."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.bias = nn.Embedding(WORDS, 4), nn.Embedding(7, 1)
        self.encoder, self.crossing, self.decoder = (nn.ModuleDict(self._attention()) for _ in range(3))
        self.norm, self.head = RMSNorm(4), nn.Linear(4, WORDS, bias=False)

    def _attention(self) -> dict[str, nn.Module]:
        return {name: nn.Linear(4, 4, bias=False) for name in ("q", "k", "v", "o")}

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Output:
        source, h = self.shared(input_ids), self.shared(decoder_input_ids)
        place = torch.arange(input_ids.shape[1])
        near = self.bias((place[None] - place[:, None]).clamp(-3, 3) + 3).squeeze(-1)  # (tokens, tokens)
        causal = torch.zeros_like(near).masked_fill(place[None] > place[:, None], -torch.inf)
        source = source + self._mix(self.encoder, source, source, near)
        h = h + self._mix(self.decoder, h, h, near + causal)
        h = h + self._mix(self.crossing, h, source, None)
        return Output(self.head(self.norm(h)))

    def _mix(self, part: nn.ModuleDict, h: Tensor, source: Tensor, bias: Tensor | None) -> Tensor:
        scores = part["q"](h) @ part["k"](source).mT
        return part["o"]((scores if bias is None else scores + bias).softmax(-1) @ part["v"](source))


def padded() -> dict[str, Tensor]:
    mask = torch.arange(4) < torch.tensor([4, 3, 2, 4, 3, 4, 2, 4])[:, None]
    return {"input_ids": torch.where(mask, IDS.clamp(min=1), 0), "attention_mask": mask.long()}


KINDS = [
    Kind("ViT", lambda: seeded(ViT()), values(8, 2, 6, 6), Y, "encoder.layers.1.linear1",
         neurons="encoder.layers.0.linear1", blocks=("encoder.layers.0", "encoder.layers.1"),
         readout=lambda network, h: network.head(h[:, 0])),
    Kind("GPT-2-like", lambda: seeded(GPT2()), IDS, NEXT, "h.1.c_fc", neurons="h.0.c_fc", neuron_axis=2),
    Kind("Llama-like", lambda: seeded(Llama()), IDS, NEXT, "layers.0.gate_proj", neurons="layers.1.gate_proj"),
    Kind("BERT-like", lambda: seeded(Bert()), padded(), Y, "dense", neurons="dense", forward=of_logits),
    Kind("T5-like", lambda: seeded(T5()), {"input_ids": IDS, "decoder_input_ids": NEXT}, NEXT, "crossing.v",
         neurons="crossing.v", forward=of_logits),
]  # fmt: skip
