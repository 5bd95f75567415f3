"""Linear interpolation and extrapolation of two tensors."""

import torch


def linear(base: torch.Tensor, aligned: torch.Tensor, lam: float) -> torch.Tensor:
    """(1 - lambda) base + lambda aligned in float32, base first, one fused multiply-add for aligned.

    Takes tensors of one shape and any float dtype, gives float32. Source: Wortsman et al. 2022 (WiSE-FT), eq. 1.
    """
    weights = torch.tensor([1.0 - lam, lam], dtype=torch.float32, device=base.device)
    return torch.addcmul(base.float() * weights[0], aligned.float(), weights[1])
