"""Networks of torchvision, timm, transformers and peft: random weights, tiny configurations, nothing is downloaded."""

import copy
import functools
import importlib

import torch
from attention import of_logits
from kinds import RELU, Kind, after_training, centred, tokens, values
from torch import nn

ROUNDED = 1e-3  # relative, where norms round to float32
LIBRARIES = ("torchvision", "timm", "transformers", "peft")
INSTALL = "pip install -e .[networks]"
IMAGES, Y = values(8, 3, 16, 16), torch.arange(8) % 3
WORDS = 12
IDS, NEXT = tokens(8, 6, vocabulary=WORDS), tokens(8, 6, vocabulary=WORDS, seed=1)
MASK = (torch.arange(6) < torch.tensor([6, 5, 4, 6, 3, 6, 4, 6])[:, None]).long()


def missing() -> str:
    """Which library cannot be imported and why; "" if all can."""
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision was built for another torch
            return f"{name} cannot be imported ({error}); {INSTALL}"
    return ""


def library(name: str) -> object:
    return importlib.import_module(name)


@torch.no_grad()
def fresh(network: nn.Module) -> nn.Module:
    """In float64; scales and biases near their start, where those of some branches are 0."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.double().parameters():
        if parameter.dim() == 1:
            parameter += 0.2 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    return after_training(network)


@torch.no_grad()
def normalised(network: nn.Module, x: torch.Tensor) -> nn.Module:
    """The network with the statistics of x in its batch norms: with others, its signal is lost in so many layers."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    network.train()(x)
    return network


def with_exact_norms(network: nn.Module) -> nn.Module:
    """The network with norms that compute in its own precision: those of Llama and T5 round to float32.

    Differences over small steps need that, and over large ones they would cross the kinks of ReLU.
    """
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if type(module).__name__ in ("LlamaRMSNorm", "T5LayerNorm"):
            module.forward = functools.partial(rms_norm, module)
    return twin


def rms_norm(module: nn.Module, values: torch.Tensor) -> torch.Tensor:
    return module.weight * values * torch.rsqrt(values.square().mean(-1, keepdim=True) + module.variance_epsilon)


def resnet() -> nn.Module:
    models = library("torchvision.models.resnet")
    return centred(fresh(models.ResNet(models.BasicBlock, [1, 1, 1, 1], num_classes=3)), "fc", IMAGES)


def mobilenet() -> nn.Module:
    make = library("torchvision.models").mobilenet_v3_small
    return centred(
        normalised(fresh(make(num_classes=3, weights=None, width_mult=0.25)), IMAGES), "classifier.3", IMAGES
    )


def vit() -> nn.Module:
    make = library("torchvision.models").VisionTransformer
    network = fresh(
        make(image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=3)
    )
    nn.init.normal_(network.heads.head.weight, generator=torch.Generator().manual_seed(0))  # zero at construction
    return centred(network, "heads.head", IMAGES)


def timm(name: str, head: str, **options: object) -> nn.Module:
    return centred(fresh(library("timm").create_model(name, pretrained=False, num_classes=3, **options)), head, IMAGES)


def gpt2() -> nn.Module:
    t = library("transformers")
    config = t.GPT2Config(
        vocab_size=WORDS, n_positions=8, n_embd=8, n_layer=2, n_head=2, use_cache=False, bos_token_id=1,
        eos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    return fresh(t.GPT2LMHeadModel(config))


def llama() -> nn.Module:
    t = library("transformers")
    config = t.LlamaConfig(
        vocab_size=WORDS, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8, use_cache=False, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    return fresh(t.LlamaForCausalLM(config))


def bert() -> nn.Module:
    t = library("transformers")
    config = t.BertConfig(
        vocab_size=WORDS, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=8, num_labels=3, initializer_range=0.3,
    )  # fmt: skip
    return fresh(t.BertForSequenceClassification(config))


def t5() -> nn.Module:
    t = library("transformers")
    config = t.T5Config(
        vocab_size=WORDS, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, decoder_start_token_id=0,
        use_cache=False,
    )  # fmt: skip
    return fresh(t.T5ForConditionalGeneration(config))


def lora() -> nn.Module:
    peft = library("peft")
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    return fresh(peft.get_peft_model(gpt2(), config))


WITH_MASK = {"input_ids": IDS, "attention_mask": MASK}
KINDS = [
    Kind("torchvision ResNet", resnet, IMAGES, Y, "fc", neurons="fc", step=RELU),
    Kind("torchvision MobileNet v3", mobilenet, IMAGES, Y, "features.12.0", at="preactivation",
         neurons="classifier.3", step=RELU),
    Kind("torchvision ViT", vit, IMAGES, Y, "encoder.layers.encoder_layer_1.mlp.0",
         neurons="encoder.layers.encoder_layer_0.mlp.0"),
    Kind("timm ResNet", lambda: timm("test_resnet", "fc"), IMAGES, Y, "fc",
         neurons="layer1.0.conv1", step=RELU),
    Kind("timm ViT", lambda: timm("test_vit", "head", img_size=16, patch_size=8), IMAGES, Y, "head",
         neurons="blocks.0.attn.proj"),
    Kind("timm EfficientNet", lambda: timm("test_efficientnet", "classifier"), IMAGES, Y, "classifier",
         neurons="conv_head"),
    Kind("transformers GPT-2", gpt2, {"input_ids": IDS}, NEXT, "transformer.h.1.mlp.c_fc",
         neurons="transformer.h.0.mlp.c_fc", neuron_axis=2, forward=of_logits),
    Kind("transformers Llama", llama, WITH_MASK, NEXT, "model.layers.0.mlp.gate_proj",
         neurons="model.layers.1.mlp.gate_proj", forward=of_logits, tolerance=ROUNDED, twin=with_exact_norms),
    Kind("transformers BERT", bert, WITH_MASK, Y, "bert.encoder.layer.1.attention.self.query",
         neurons="bert.encoder.layer.0.intermediate.dense", forward=of_logits),
    Kind("transformers T5", t5, WITH_MASK | {"decoder_input_ids": NEXT}, NEXT,
         "decoder.block.0.layer.2.DenseReluDense.wi", neurons="encoder.block.0.layer.1.DenseReluDense.wi",
         forward=of_logits, tolerance=ROUNDED, twin=with_exact_norms),
    Kind("peft LoRA on GPT-2", lora, {"input_ids": IDS}, NEXT, "base_model.model.transformer.h.0.attn.c_attn",
         neurons="base_model.model.transformer.h.1.attn.c_attn", neuron_axis=2, forward=of_logits),
]  # fmt: skip
