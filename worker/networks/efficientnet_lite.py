"""EfficientNet-Lite0: EfficientNet without squeeze-and-excitation, and with ReLU6 for every nonlinearity.

Tan and Le, "EfficientNet" (2019), section 4; the Lite variant as released by the TensorFlow authors. Their
weights expect TensorFlow's "SAME" padding: where the stride is 2 and the input even, one pixel more at the
right and bottom than at the left and top.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from worker.networks.entry import State

STAGES = (
    # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, HEAD = 32, 1280
EPSILON = 1e-3


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=0.01)


def _same_padding(kernel: int, stride: int) -> nn.Module:
    """TensorFlow's padding for even inputs; stride 1 is padded by the convolution itself."""
    if stride == 1:
        return nn.Identity()
    total = kernel - stride
    return nn.ZeroPad2d((total // 2, total - total // 2) * 2)


class Block(nn.Module):
    """Inverted bottleneck: expand 1×1, depthwise k×k, project 1×1; added to its input where shapes agree."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = expansion != 1
        if self.expand:
            self.expand_conv = nn.Conv2d(inputs, inner, 1, bias=False)
            self.bn0 = _norm(inner)
            self.relu0 = nn.ReLU6()
        self.pad = _same_padding(kernel, stride)
        inside = kernel // 2 if stride == 1 else 0
        self.depthwise_conv = nn.Conv2d(inner, inner, kernel, stride, inside, groups=inner, bias=False)
        self.bn1 = _norm(inner)
        self.relu1 = nn.ReLU6()
        self.project_conv = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn2 = _norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.relu0(self.bn0(self.expand_conv(x))) if self.expand else x
        y = self.relu1(self.bn1(self.depthwise_conv(self.pad(y))))
        y = self.bn2(self.project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """(N, 3, H, W) with H and W multiples of 32 → logits (N, num_classes)."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.pad = _same_padding(3, 2)
        self.conv_stem = nn.Conv2d(3, STEM, 3, 2, bias=False)
        self.bn0 = _norm(STEM)
        self.relu0 = nn.ReLU6()
        blocks: list[Block] = []
        inputs = STEM
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for index in range(repeats):
                blocks.append(Block(kernel, 1 if index else stride, expansion, inputs, outputs))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv_head = nn.Conv2d(inputs, HEAD, 1, bias=False)
        self.bn1 = _norm(HEAD)
        self.relu1 = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(HEAD, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) → logits (N, num_classes)."""
        x = self.relu0(self.bn0(self.conv_stem(self.pad(x))))
        x = self.blocks(x)
        x = self.relu1(self.bn1(self.conv_head(x)))
        logits: Tensor = self.fc(self.dropout(self.flatten(self.pool(x))))
        return logits


def convert(state: State) -> State:
    """Keys of the published file (`_blocks.0._bn1.weight`) → keys of the module (`blocks.0.bn1.weight`)."""
    return {re.sub(r"(^|\.)_", r"\1", key): value for key, value in state.items()}
