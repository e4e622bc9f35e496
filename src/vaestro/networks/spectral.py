"""The largest singular value of every convolution and linear layer, followed while they train."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = (nn.Conv2d, nn.Linear)


def matrices(net: nn.Module) -> list[Tensor]:
    """The weights of the convolutions and linear layers of a network as matrices [outputs, all inputs of one output], in order."""
    return [layer.weight.flatten(1) for layer in net.modules() if isinstance(layer, KINDS)]


class Spectral(nn.Module):
    """sum_i s_i, s_i the largest singular value of layer i of a network (Vahdat & Kautz 2020, section 3.2; Yoshida & Miyato 2017, section 3.2).

    By one step of power iteration a call from where the last one ended: the vectors are saved with the weights. The network itself is no part of this one.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.count = 0
        for w in matrices(net):
            self.register_buffer(f"u{self.count}", F.normalize(torch.randn(w.shape[0]), dim=0))
            self.count += 1

    def forward(self, net: nn.Module) -> Tensor:
        """The sum, as a number with a gradient to the weights; never above the true one."""
        weights = matrices(net)
        with torch.autocast(weights[0].device.type, enabled=False):  # half precision would turn the vectors aside
            return torch.stack([self._largest(self.get_buffer(f"u{i}"), w) for i, w in enumerate(weights)]).sum()

    def _largest(self, u: Tensor, w: Tensor) -> Tensor:
        with torch.no_grad():
            v = F.normalize(w.T @ u, dim=0)
            u.copy_(F.normalize(w @ v, dim=0))
        return u.clone() @ (w @ v)  # a copy, for the vector moves on while the gradient may still be asked for
