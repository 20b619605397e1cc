"""The layer that is looked at where none is named: of real architectures, and of their patterns."""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from test_architectures import CASES, RESNET, SMALL, TRANSFORMER, UNet, hugging_face
from torch import Tensor, nn
from torch.nn import functional

import ifa
from ifa.stages import cancels

CLASSES = 5
DEEP = pytest.mark.deep


# patterns ----------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Self-attention with normalized queries and keys, and heads that talk, as in ViT and CaiT."""

    def __init__(self, width: int, heads: int = 2, talking: bool = False):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = (nn.LayerNorm(width // heads) for _ in range(2))
        self.attn_drop = nn.Dropout(0.1)
        self.mix = nn.Linear(heads, heads) if talking else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        logits = self.q_norm(q) @ self.k_norm(k).mT
        logits = self.mix(logits.movedim(1, -1)).movedim(-1, 1)
        return self.proj((self.attn_drop(logits.softmax(-1)) @ v).transpose(1, 2).flatten(2))


class ClassAttention(nn.Module):
    """Only the first token asks, as in CaiT and VOLO."""

    def __init__(self, width: int):
        super().__init__()
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.attn_drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.kv(x).chunk(2, -1)
        weights = self.attn_drop((self.q(x[:, :1]) @ k.mT).softmax(-1)[:, None])
        return weights[:, 0] @ v


class Mlp(nn.Sequential):
    def __init__(self, width: int):
        super().__init__(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Block(nn.Module):
    def __init__(self, width: int, attn: nn.Module):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), attn
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ClassAttentionBlock(Block):
    def forward(self, x: Tensor) -> Tensor:
        token = x[:, :1] + self.attn(self.norm1(x))
        token = token + self.mlp(self.norm2(token))
        return torch.cat([token, x[:, 1:]], 1)


class Vit(nn.Module):
    """A vision transformer read by its class token or by the mean of all."""

    def __init__(self, read: str, talking: bool = False, asks: int = 0, prefix: int = 1):
        super().__init__()
        self.read = read
        self.patch = nn.Conv2d(3, 12, 4, stride=4)
        self.prefix = nn.Parameter(torch.randn(1, prefix, 12))
        self.blocks = nn.Sequential(*(Block(12, Attention(12, 2, talking)) for _ in range(2)))
        self.asking = nn.Sequential(
            *(ClassAttentionBlock(12, ClassAttention(12)) for _ in [0] * asks)
        )
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], 1)
        x = self.norm(self.asking(self.blocks(x)))
        return self.head(x[:, 0] if self.read == "class" else x.mean(1))


class Mixer(nn.Module):
    """Perceptrons over tokens and over channels."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, stride=4)
        self.tokens, self.channels = Mlp(48), Mlp(12)
        self.norms = nn.ModuleList(nn.LayerNorm(12) for _ in range(3))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norms[0](x).mT).mT
        x = x + self.channels(self.norms[1](x))
        return self.head(self.norms[2](x).mean(1))


class PooledAttention(nn.Module):
    """Attention that makes the grid smaller, as in MViT: its pools lie inside."""

    def __init__(self, width: int, grid: tuple[int, int]):
        super().__init__()
        self.grid, self.pool = grid, nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.kv, self.norm_q = nn.Linear(width, 2 * width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.kv(x).chunk(2, -1)
        q = self.pool(x.mT.unflatten(2, self.grid)).flatten(2).mT
        return self.norm_q(q) + (q @ k.mT).softmax(-1) @ v


class MultiScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.attn = nn.Conv2d(3, 12, 4, stride=4), PooledAttention(12, (6, 8))
        self.mlp, self.norm = Mlp(12), nn.LayerNorm(12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.patch(x).flatten(2).mT)
        return self.head(self.norm(x + self.mlp(x)).mean(1))


class DeepLab(nn.Module):
    """A segmentation with a decoder's head, and another for training."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1))
        self.classifier = nn.Sequential(
            nn.Conv2d(8, 7, 3, 1, 1), nn.ReLU(), nn.Conv2d(7, CLASSES, 1)
        )
        self.aux_classifier = nn.Sequential(nn.Conv2d(8, 4, 3, 1, 1), nn.Conv2d(4, CLASSES, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        deep = self.backbone(x)
        return {
            name: functional.interpolate(head(deep), x.shape[2:], mode="bilinear")
            for name, head in (("out", self.classifier), ("aux", self.aux_classifier))
        }


class Unread(nn.Module):
    """A branch that runs last and that the score does not read."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 4, 3)
        self.linear = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x).relu()
        return self.linear(x.mean((2, 3))), self.other(x)


class Gated(nn.Module):
    """A map of one channel weighs the positions at the end, as in CBAM."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 1, 3, padding=1)
        self.linear = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.linear((x * self.gate(x).sigmoid()).mean((2, 3)))


class AttentionNet(nn.Module):
    """A network called after the several modules in it that attend."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 4, stride=4)
        self.one, self.two = (Block(12, Attention(12)) for _ in range(2))
        self.last = nn.Conv2d(12, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        tokens = self.two(self.one(x.flatten(2).mT))
        return self.last(tokens.mT.unflatten(2, x.shape[2:])).relu()


class Latents(nn.Module):
    """What attends to the input is no place of it, though there are 16 and 4 × 4 would fit."""

    def __init__(self):
        super().__init__()
        self.pixels = nn.Conv2d(3, 12, 4, stride=4)
        self.latents = nn.Parameter(torch.randn(1, 16, 12))
        self.cross = nn.MultiheadAttention(12, 2, batch_first=True)
        self.block, self.head = Block(12, Attention(12)), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.pixels(x).flatten(2).mT
        asked = self.latents.expand(len(x), -1, -1)
        return self.head(self.block(self.cross(asked, tokens, tokens)[0]).mean(1))


class Signal(nn.Module):
    """A transformer of what convolutions make of (channel, time), as of EEG, ECG and sound."""

    def __init__(self, cut: nn.Module):
        super().__init__()
        self.cut = cut
        self.block = nn.TransformerEncoderLayer(16, 2, 20, 0.0, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.cut(x).mT).mean(1))


class Conformer(nn.Module):
    """Convolutions over time and electrodes, as of an image, then a transformer over time."""

    def __init__(self):
        super().__init__()
        self.time, self.space = nn.Conv2d(1, 16, (1, 7)), nn.Conv2d(16, 16, (6, 1))
        self.block = nn.TransformerEncoderLayer(16, 2, 20, 0.0, batch_first=True)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.space(self.time(x[:, None])).squeeze(2)
        return self.head(self.norm(self.block(x.mT)).mean(1))


def chained(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(*parts)


def fully_convolutional() -> nn.Module:
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return chained(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, CLASSES, 1), nn.ReLU(), *pool)


class Named(nn.Module):
    def __init__(self, features: nn.Module, classifier: nn.Module):
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)).flatten(1)


def squeeze_net() -> nn.Module:
    features = chained(nn.Conv2d(3, 6, 3, 2), nn.ReLU())
    return Named(features, chained(nn.Conv2d(6, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)))


# the table ---------------------------------------------------------------------------------------


class Row(NamedTuple):
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of one input
    layer: str
    laid: tuple[int, ...]  # (channel, *grid) of one example; () where it is refused
    tokens: int = 0  # so many words there are, where inputs are words


def hf(package: str, model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        module = importlib.import_module(f"transformers.models.{package}")
        return getattr(module, model)(getattr(module, config)(**options))

    return build


def classifier(package: str, name: str, **options: Any) -> Callable[[], nn.Module]:
    kind = f"{name}ForImageClassification"
    return hf(package, kind, f"{name}Config", num_labels=CLASSES, **options)


def vit(package: str, name: str, **options: Any) -> Callable[[], nn.Module]:
    options = {"image_size": (24, 32), "patch_size": 4, **TRANSFORMER, **options}
    return hf(package, f"{name}ForImageClassification", f"{name}Config", **options)


def clip(package: str, name: str) -> Callable[[], nn.Module]:
    eager: Any = {"attn_implementation": "eager"}

    def build() -> nn.Module:
        module = importlib.import_module(f"transformers.models.{package}")
        vision = {"hidden_size": 16, "image_size": 32, "patch_size": 4, **SMALL}
        config = getattr(module, f"{name}Config")(vision_config=vision, num_labels=CLASSES, **eager)
        return getattr(module, f"{name}ForImageClassification")(config)

    return build


IMAGE, LARGE = (3, 24, 32), (3, 64, 96)
FOUR: Any = {"hidden_sizes": [8, 8, 12, 16], "depths": [1, 1, 1, 1]}
PYRAMID: Any = {**FOUR, "num_attention_heads": [1, 2, 2, 2]}
SEGFORMER: Any = {**PYRAMID, "decoder_hidden_size": 14, "num_labels": CLASSES}
SWIN: Any = {"image_size": (32, 48), "patch_size": 2, "embed_dim": 8, "depths": [1, 2]}
SWIN |= {"num_heads": [2, 2], "window_size": 4}
DPT: Any = {"image_size": 32, "patch_size": 4, "is_hybrid": False, "hidden_size": 16}
DPT |= {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [6, 8, 10, 12], **SMALL}
DPT |= {"fusion_hidden_size": 14, "num_hidden_layers": 4}
SOUND: Any = {"conv_dim": (8, 12), "conv_stride": (4, 2), "conv_kernel": (8, 3), **TRANSFORMER}
SOUND |= {"num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4, "classifier_proj_size": 8}
SOUND |= {"num_conv_pos_embedding_groups": 2}
WHISPER: Any = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "vocab_size": 20}
WHISPER |= {"encoder_ffn_dim": 20, "decoder_layers": 1, "decoder_attention_heads": 2}
WHISPER |= {"num_mel_bins": 10, "max_source_positions": 50, "classifier_proj_size": 8}
WHISPER |= {"decoder_ffn_dim": 20, "num_labels": CLASSES, "pad_token_id": 0, "bos_token_id": 1}
WHISPER |= {"eos_token_id": 2, "decoder_start_token_id": 1}
PERCEIVER: Any = {"num_latents": 16, "d_latents": 16, "num_blocks": 1, "num_labels": CLASSES}
PERCEIVER |= {"num_self_attends_per_block": 2, "num_self_attention_heads": 2, "image_size": 16}
PERCEIVER |= {"num_cross_attention_heads": 1}
LEVIT: Any = {"hidden_sizes": [14, 24, 32], "num_attention_heads": [2, 2, 2], "image_size": 96}
LEVIT |= {"key_dim": [4, 4, 4], "depths": [1, 1, 1], "attention_ratio": [2, 2, 2]}

OURS = {
    "class token": Row(partial(Vit, "class"), IMAGE, "blocks.1.norm1", (12, 6, 8)),
    "class token, two more": Row(
        partial(Vit, "class", prefix=3), IMAGE, "blocks.1.norm1", (12, 6, 8)
    ),
    "mean of tokens": Row(partial(Vit, "mean"), IMAGE, "norm", (12, 6, 8)),
    "talking heads": Row(partial(Vit, "class", True), IMAGE, "blocks.1.norm1", (12, 6, 8)),
    "class attention": Row(partial(Vit, "class", True, 2), IMAGE, "asking.1.norm1", (12, 6, 8)),
    "mixer": Row(Mixer, IMAGE, "norms.2", (12, 6, 8)),
    "pooled attention": Row(MultiScale, IMAGE, "norm", (12, 3, 4)),
    "deeplab": Row(DeepLab, IMAGE, "backbone", (8, 6, 8)),
    "U-Net": Row(UNet, (2, 16, 24), "join1", (4, 16, 24)),
    "an unread branch": Row(Unread, IMAGE, "conv", (6, 11, 15)),
    "a gate": Row(Gated, IMAGE, "conv", (6, 11, 15)),
    "named after attention": Row(
        lambda: chained(AttentionNet(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        IMAGE,
        "0",
        (6, 6, 8),
    ),
    "latents": Row(Latents, IMAGE, "pixels", (12, 6, 8)),
    "maps of classes": Row(fully_convolutional, IMAGE, "3", (CLASSES, 11, 15)),
    "SqueezeNet": Row(squeeze_net, IMAGE, "features", (6, 11, 15)),
    "EEG": Row(lambda: Signal(nn.Conv1d(2, 16, 4, 4)), (2, 80), "block", (16, 20)),
    "EEG, overlapping": Row(lambda: Signal(nn.Conv1d(2, 16, 9, 4)), (2, 80), "block", (16, 18)),
    "EEG, as an image": Row(Conformer, (6, 40), "norm", (16, 34)),
}
HUGGING_FACE = {
    "ViT": Row(vit("vit", "ViT"), IMAGE, "vit.layers.1.layernorm_before", (16, 6, 8)),
    "BEiT": Row(
        vit("beit", "Beit", image_size=32, use_mean_pooling=True, use_relative_position_bias=True),
        (3, 32, 32),
        "beit.layernorm",
        (16, 8, 8),
    ),
    "HuBERT": Row(
        partial(hugging_face, "Hubert", "ForSequenceClassification", **SOUND),
        (400,),
        "projector",
        (8, 49),
    ),
    "Swinv2": Row(
        classifier("swinv2", "Swinv2", **SWIN | {"image_size": 32}),
        (3, 32, 32),
        "swinv2.layernorm",
        (16, 8, 8),
    ),
    "PVT": Row(
        classifier("pvt", "Pvt", image_size=64, **PYRAMID),
        (3, 64, 64),
        "pvt.encoder.block.3.0.layer_norm_1",
        (16, 2, 2),
    ),
    "ResNet": Row(RESNET, IMAGE, "resnet.encoder.stages.1", (12, 3, 4)),
    "ConvNeXt": Row(
        classifier("convnext", "ConvNext", **FOUR), LARGE, "convnext.encoder.stages.3", (16, 2, 3)
    ),
    "SegFormer-seg": Row(
        hf("segformer", "SegformerForSemanticSegmentation", "SegformerConfig", **SEGFORMER),
        LARGE,
        "segformer.stages.3",
        (16, 2, 3),
    ),
    "YOLOS": Row(
        partial(
            hugging_face,
            "Yolos",
            "ForObjectDetection",
            image_size=[32, 32],
            patch_size=8,
            num_detection_tokens=3,
            **TRANSFORMER,
        ),
        (3, 32, 32),
        "vit.embeddings.patch_embeddings.projection",
        (16, 4, 4),
    ),
    "Whisper": Row(
        hf("whisper", "WhisperForAudioClassification", "WhisperConfig", **WHISPER),
        (10, 100),
        "projector",
        (8, 50),
    ),
    "BERT": Row(
        hf(
            "bert",
            "BertForSequenceClassification",
            "BertConfig",
            vocab_size=20,
            max_position_embeddings=16,
            **TRANSFORMER,
        ),
        (12,),
        "bert.encoder.layer.0",
        (16, 12),
        20,
    ),
    "AST": Row(
        hf(
            "audio_spectrogram_transformer",
            "ASTForAudioClassification",
            "ASTConfig",
            max_length=64,
            num_mel_bins=32,
            patch_size=8,
            frequency_stride=6,
            time_stride=6,
            **TRANSFORMER,
        ),
        (64, 32),
        "",
        (),
    ),
    "BEiT, class token": Row(
        vit("beit", "Beit", image_size=32, use_mean_pooling=False),
        (3, 32, 32),
        "beit.layers.1.layernorm_before",
        (16, 8, 8),
    ),
    "Data2Vec": Row(
        hf(
            "data2vec",
            "Data2VecVisionForImageClassification",
            "Data2VecVisionConfig",
            image_size=32,
            patch_size=4,
            **TRANSFORMER,
        ),
        (3, 32, 32),
        "data2vec_vision.layernorm",
        (16, 8, 8),
    ),
    "DeiT": Row(
        vit("deit", "DeiT", image_size=32),
        (3, 32, 32),
        "deit.layers.1.layernorm_before",
        (16, 8, 8),
    ),
    "ViTMSN": Row(
        vit("vit_msn", "ViTMSN", image_size=32),
        (3, 32, 32),
        "vit.layers.1.layernorm_before",
        (16, 8, 8),
    ),
    "DINOv2": Row(
        vit("dinov2", "Dinov2", image_size=32, mlp_ratio=2),
        (3, 32, 32),
        "dinov2.layernorm",
        (16, 8, 8),
    ),
    "DINOv2, registers": Row(
        vit("dinov2_with_registers", "Dinov2WithRegisters", image_size=32, mlp_ratio=2),
        (3, 32, 32),
        "dinov2_with_registers.layernorm",
        (16, 8, 8),
    ),
    "DINOv3": Row(
        hf(
            "dinov3_vit",
            "DINOv3ViTModel",
            "DINOv3ViTConfig",
            image_size=32,
            patch_size=4,
            hidden_size=16,
            **SMALL,
        ),
        (3, 32, 32),
        "norm",
        (16, 8, 8),
    ),
    "DINOv3, ConvNeXt": Row(
        hf("dinov3_convnext", "DINOv3ConvNextModel", "DINOv3ConvNextConfig", **FOUR),
        LARGE,
        "layer_norm",
        (16, 2, 3),
    ),
    "CLIP": Row(clip("clip", "CLIP"), (3, 32, 32), "vision_model.encoder.layers.1", (16, 8, 8)),
    "SigLIP": Row(clip("siglip", "Siglip"), (3, 32, 32), "vision_model.post_layernorm", (16, 8, 8)),
    "CLIP, vision": Row(
        hf(
            "clip",
            "CLIPVisionModelWithProjection",
            "CLIPVisionConfig",
            projection_dim=5,
            hidden_size=16,
            image_size=32,
            patch_size=4,
            **SMALL,
        ),
        (3, 32, 32),
        "vision_model.encoder.layers.1.layer_norm1",
        (16, 8, 8),
    ),
    "SigLIP, vision": Row(
        hf(
            "siglip",
            "SiglipVisionModel",
            "SiglipVisionConfig",
            hidden_size=16,
            image_size=32,
            patch_size=4,
            **SMALL,
        ),
        (3, 32, 32),
        "post_layernorm",
        (16, 8, 8),
    ),
    "Hiera": Row(
        classifier(
            "hiera",
            "Hiera",
            embed_dim=8,
            image_size=[64, 64],
            num_heads=[1, 2, 4, 8],
            depths=[1, 1, 2, 1],
        ),
        (3, 64, 64),
        "hiera.encoder",
        (64, 2, 2),
    ),
    "LeViT": Row(
        classifier("levit", "Levit", mlp_ratio=[2, 2, 2], **LEVIT),
        (3, 96, 96),
        "levit.encoder.stages.0.layers.1",
        (14, 6, 6),
    ),
    "SegFormer": Row(
        hf("segformer", "SegformerForImageClassification", "SegformerConfig", **SEGFORMER),
        LARGE,
        "segformer.stages.3",
        (16, 2, 3),
    ),
    "DPT-seg": Row(
        hf("dpt", "DPTForSemanticSegmentation", "DPTConfig", num_labels=CLASSES, **DPT),
        (3, 32, 32),
        "neck.fusion_stage.layers.3",
        (14, 64, 64),
    ),
    "DPT-depth": Row(
        hf("dpt", "DPTForDepthEstimation", "DPTConfig", **DPT),
        (3, 32, 32),
        "neck.fusion_stage.layers.3",
        (14, 64, 64),
    ),
    "GLPN": Row(
        hf("glpn", "GLPNForDepthEstimation", "GLPNConfig", decoder_hidden_size=12, **PYRAMID),
        (3, 64, 64),
        "decoder.final_upsample",
        (12, 64, 64),
    ),
    "UperNet": Row(
        lambda: hf(
            "upernet",
            "UperNetForSemanticSegmentation",
            "UperNetConfig",
            hidden_size=8,
            auxiliary_in_channels=12,
            num_labels=CLASSES,
            auxiliary_channels=8,
            backbone_config=importlib.import_module("transformers.models.convnext").ConvNextConfig(
                out_features=["stage1", "stage2", "stage3", "stage4"], **FOUR
            ),
        )(),
        LARGE,
        "backbone.hidden_states_norms.stage4",
        (16, 2, 3),
    ),
    "MobileViT": Row(
        classifier(
            "mobilevit",
            "MobileViT",
            image_size=64,
            hidden_sizes=[12, 16, 20],
            neck_hidden_sizes=[4, 8, 8, 12, 12, 16, 24],
            num_attention_heads=2,
        ),
        (3, 64, 64),
        "mobilevit.conv_1x1_exp",
        (24, 2, 2),
    ),
    "MobileViTV2": Row(
        classifier("mobilevitv2", "MobileViTV2", image_size=64, width_multiplier=0.25),
        (3, 64, 64),
        "mobilevitv2.encoder.layer.4",
        (128, 2, 2),
    ),
    "Swin": Row(
        classifier("swin", "Swin", **SWIN | {"image_size": 32}),
        (3, 32, 32),
        "swin.layernorm",
        (16, 8, 8),
    ),
    "FocalNet": Row(
        classifier(
            "focalnet",
            "FocalNet",
            image_size=32,
            patch_size=2,
            embed_dim=8,
            depths=[1, 1],
            hidden_sizes=[8, 16],
            focal_levels=[1, 1],
            focal_windows=[3, 3],
        ),
        (3, 32, 32),
        "focalnet.layernorm",
        (16, 8, 8),
    ),
    "ConvNeXtV2": Row(
        classifier("convnextv2", "ConvNextV2", **FOUR),
        LARGE,
        "convnextv2.encoder.stages.3",
        (16, 2, 3),
    ),
    "RegNet": Row(
        classifier(
            "regnet",
            "RegNet",
            embedding_size=8,
            hidden_sizes=[8, 8, 16, 16],
            depths=[1, 1, 1, 1],
            groups_width=4,
        ),
        LARGE,
        "regnet.encoder.stages.3",
        (16, 2, 3),
    ),
    "EfficientNet": Row(
        classifier(
            "efficientnet",
            "EfficientNet",
            image_size=64,
            width_coefficient=0.25,
            depth_coefficient=0.25,
            hidden_dim=320,
        ),
        (3, 64, 64),
        "efficientnet.encoder.top_activation",
        (320, 2, 2),
    ),
    "MobileNetV1": Row(
        classifier("mobilenet_v1", "MobileNetV1", depth_multiplier=0.25, image_size=64),
        LARGE,
        "mobilenet_v1.layer.25",
        (256, 2, 3),
    ),
    "MobileNetV2": Row(
        classifier("mobilenet_v2", "MobileNetV2", depth_multiplier=0.25, image_size=64),
        LARGE,
        "mobilenet_v2.conv_1x1",
        (1280, 2, 3),
    ),
    "MobileNetV2-seg": Row(
        hf(
            "mobilenet_v2",
            "MobileNetV2ForSemanticSegmentation",
            "MobileNetV2Config",
            depth_multiplier=0.25,
            image_size=64,
            num_labels=CLASSES,
        ),
        LARGE,
        "mobilenet_v2.layer.15",
        (80, 2, 3),
    ),
    "BiT": Row(
        classifier(
            "bit", "Bit", embedding_size=8, hidden_sizes=[32] * 4, depths=[1, 1, 1, 1], num_groups=4
        ),
        LARGE,
        "bit.norm",
        (32, 2, 3),
    ),
    "PoolFormer": Row(classifier("poolformer", "PoolFormer", **FOUR), LARGE, "norm", (16, 2, 3)),
    "PVTv2": Row(
        classifier("pvt_v2", "PvtV2", image_size=64, **PYRAMID),
        (3, 64, 64),
        "pvt_v2.encoder.layers.3.layer_norm",
        (16, 2, 2),
    ),
    "SwiftFormer": Row(
        classifier(
            "swiftformer",
            "SwiftFormer",
            image_size=64,
            embed_dims=[8, 8, 16, 16],
            depths=[1, 1, 1, 1],
        ),
        (3, 64, 64),
        "norm",
        (16, 2, 2),
    ),
    "Perceiver": Row(
        hf("perceiver", "PerceiverForImageClassificationLearned", "PerceiverConfig", **PERCEIVER),
        (3, 16, 16),
        "perceiver.input_preprocessor.convnet_1x1",
        (256, 16, 16),
    ),
    "VideoMAE": Row(
        CASES["VideoMAE"].build, (4, 3, 16, 16), "videomae.encoder.layer.1", (16, 2, 4, 4)
    ),
    "ViViT": Row(
        hf(
            "vivit",
            "VivitForVideoClassification",
            "VivitConfig",
            image_size=16,
            num_frames=4,
            tubelet_size=[2, 4, 4],
            **TRANSFORMER,
        ),
        (4, 3, 16, 16),
        "vivit.layers.1.layernorm_before",
        (16, 2, 4, 4),
    ),
    "TimeSformer": Row(
        hf(
            "timesformer",
            "TimesformerForVideoClassification",
            "TimesformerConfig",
            image_size=16,
            num_frames=4,
            patch_size=4,
            **TRANSFORMER,
        ),
        (4, 3, 16, 16),
        "",
        (),
    ),
    "Wav2Vec2": Row(CASES["Wav2Vec2"].build, (400,), "projector", (8, 49)),
    "ImageGPT": Row(
        hf(
            "imagegpt",
            "ImageGPTForImageClassification",
            "ImageGPTConfig",
            vocab_size=20,
            n_positions=64,
            n_embd=16,
            n_layer=2,
            n_head=2,
            num_labels=CLASSES,
        ),
        (64,),
        "transformer",
        (16, 64),
        19,
    ),
}
QUICK = ["ViT", "BEiT", "HuBERT", "Swinv2", "PVT", "ResNet", "ConvNeXt", "SegFormer-seg", "YOLOS"]
QUICK += ["Whisper", "BERT", "AST"]


def marked(rows: dict[str, Row], quick: list[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in quick else DEEP) for name in rows]


ROWS = OURS | HUGGING_FACE


def made(row: Row) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = row.build().eval()
        for parameter in net.parameters():
            if parameter.ndim > 1 and not parameter.any():  # such as a head that starts at zero
                nn.init.normal_(parameter, std=0.1)
    return net


def batch(row: Row, samples: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if row.tokens:
        return torch.randint(row.tokens, (samples, *row.shape), generator=generator)
    return torch.randn(samples, *row.shape, generator=generator)


def total(output: Tensor, target: Tensor) -> Tensor:
    """Mix all outputs, of whatever shape."""
    return (output.flatten() * torch.linspace(-1, 1, output.numel())).sum()


def holds(row: Row, net: nn.Module) -> None:
    inputs = batch(row)
    if not row.laid:
        with pytest.raises(
            LookupError, match=r"^ifa\.tap: expected a layer whose output has a grid"
        ):
            ifa.tap(net, None, inputs)
        return
    for example in (inputs, batch(row, 1), inputs if row.tokens else torch.zeros(1, *row.shape)):
        tap = ifa.tap(net, None, example, score=total)
        assert (tap.sites[0].layer, tap.shapes[0]) == (row.layer, row.laid)
    features = tap(inputs, 0)
    assert int(features.gradients.flatten(2).any(1).any(0).sum()) > 1
    assert not torch.func.vmap(cancels)(features.gradients * features.activations).any()


@pytest.mark.parametrize("name", marked(ROWS, [*OURS, *QUICK]))
def test_the_default_layer(name):
    if name in HUGGING_FACE:
        pytest.importorskip("transformers")
    holds(ROWS[name], made(ROWS[name]))


# timm, which asks for torchvision only for what is not needed here --------------------------------


class _Nothing(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class _Blank(types.ModuleType):
    __version__ = "0"

    def __init__(self, name: str):
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing(name, (nn.Module,), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Blank(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


@contextlib.contextmanager
def without_torchvision() -> Iterator[None]:
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            if isinstance(sys.modules[name], _Blank):
                del sys.modules[name]


def timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        with without_torchvision():
            module = pytest.importorskip("timm")
            return module.create_model(name, pretrained=False, num_classes=CLASSES, **options)

    return build


PHOTO = (3, 224, 224)
TIMM = {
    "vit_tiny_patch16_224": ("blocks.1.norm1", (192, 14, 14), {"depth": 2}),
    "deit_tiny_distilled_patch16_224": ("blocks.1.norm1", (192, 14, 14), {"depth": 2}),
    "deit3_small_patch16_224": ("blocks.1.norm1", (384, 14, 14), {"depth": 2}),
    "eva02_tiny_patch14_224": ("norm", (192, 16, 16), {"depth": 2}),
    "vit_relpos_small_patch16_224": ("norm", (384, 14, 14), {"depth": 2}),
    "pit_ti_224": ("transformers.2.blocks.3.norm1", (256, 7, 7), {}),
    "cait_xxs24_224": ("blocks_token_only.1.norm1", (192, 14, 14), {"depth": 2}),
    "xcit_nano_12_p16_224": ("cls_attn_blocks.1.norm1", (128, 14, 14), {"depth": 2}),
    "volo_d1_224": ("norm", (384, 14, 14), {}),
    "tnt_s_patch16_224": ("blocks.1.norm_out", (384, 14, 14), {"depth": 2}),
    "mvitv2_tiny": ("norm", (768, 7, 7), {}),
    "mvitv2_small_cls": ("stages.3.blocks.1.norm1", (768, 7, 7), {}),
    "mixer_s32_224": ("norm", (512, 7, 7), {}),
    "resmlp_12_224": ("norm", (384, 14, 14), {}),
    "gmlp_ti16_224": ("norm", (128, 14, 14), {}),
    "coat_tiny": ("parallel_blocks.5.norm14", (152, 7, 7), {}),
    "twins_pcpvt_small": ("norm", (512, 7, 7), {"depths": (1, 1, 1, 1)}),
    "hiera_tiny_224": ("blocks.11", (768, 7, 7), {}),
    "convnext_atto": ("norm_pre", (320, 7, 7), {"depths": (1, 1, 1, 1)}),
    "resnet18": ("layer4", (512, 7, 7), {}),
    "efficientnet_b0": ("bn2", (1280, 7, 7), {}),
    "densenet121": ("features", (1024, 7, 7), {}),
    "vgg11": ("features", (512, 7, 7), {}),
    "mobilevit_xxs": ("final_conv", (320, 7, 7), {}),
}


@pytest.mark.deep
@pytest.mark.parametrize("name", TIMM)
@pytest.mark.filterwarnings("ignore")  # timm's own
def test_the_default_layer_of_timm(name):
    layer, laid, options = TIMM[name]
    row = Row(timm(name, **options), PHOTO, layer, laid)
    holds(row, made(row))


# how it is chosen --------------------------------------------------------------------------------


def test_taps_cuts_and_perturbations_choose_the_same():
    row = OURS["class token"]
    net, inputs = made(row), batch(row)
    assert ifa.cut(net, None, inputs).layer == row.layer
    assert repr(row.layer) in repr(ifa.perturb.ablationcam(net, None, inputs))


def test_a_grid_that_is_said_says_what_can_be_laid_out():
    net, inputs = made(OURS["class token"]), batch(OURS["class token"])
    line = ifa.tokens(0, (49,))
    tap = ifa.tap(net, None, inputs, grid=line)
    assert tap.sites[0].layer == "blocks.1.norm1"
    assert tap.shapes == ((12, 49),)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("name", ["Swinv2", "YOLOS"])
def test_one_sample_is_as_good_as_three(name, samples):
    pytest.importorskip("transformers")
    row = HUGGING_FACE[name]
    maps = ifa.explain(made(row), batch(row, samples), 0, score=total)
    assert maps.shape == (samples, 32, 32)
    assert maps.any()


def test_a_layer_may_be_the_module_itself():
    net, inputs = made(OURS["U-Net"]), batch(OURS["U-Net"])
    for module, name in ((net.bottom, "bottom"), (net.down2, "down2")):  # the second is iterable
        by_module = ifa.tap(net, module, inputs, score=total)
        assert by_module.sites[0].layer == name
        assert isinstance(by_module(inputs, 0), ifa.Features)
        assert ifa.cut(net, module, inputs).layer == name
        assert repr(name) in repr(ifa.perturb.ablationcam(net, module, inputs, score=total))
    assert [site.layer for site in ifa.tap(net, [net.bottom, "join1"], inputs).sites] == [
        "bottom",
        "join1",
    ]
    with pytest.raises(
        LookupError, match=r"^ifa\.tap: expected a layer of UNet, got a Conv2d that"
    ):
        ifa.tap(net, nn.Conv2d(1, 1, 1), inputs)


def test_a_network_without_a_path_to_the_output_is_refused():
    class Detached(Gated):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.conv(x).detach().round().mean((2, 3)).detach())

    text = r"found none in Detached that will do, no gradient reaches their grid \(1\)\. Name"
    with torch.random.fork_rng(), pytest.raises(LookupError, match=text):
        ifa.tap(Detached().eval(), None, torch.zeros(1, *IMAGE))
