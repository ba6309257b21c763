"""Running normaliser of observations: a module with buffers, so that checkpoints and exported files cannot leave it behind."""

import torch
from torch import Tensor, nn

# Added to the variance. (0.1 mm)^2 or (0.1 mrad)^2: finer than any sensor of ours, so a constant element cannot blow up noise.
VARIANCE_EPS = 1e-8
# Normalised observations are clipped to this many standard deviations; beyond it a network only extrapolates, and the runtime calls
# it far from the training. At 10 the sums in float32 were large enough to differ by 1.7e-5 between two ways to add them up; at 5
# the same network differs by 5e-6.
CLIP_SIGMA = 5.0


class Normalizer(nn.Module):
    """Subtracts the mean, divides by the standard deviation, clips.

    Statistics are kept in float64, because a running mean over 10^8 samples loses its updates in float32; they are used in
    float32. Before the first `update` it is the identity, apart from the clip.

    Args:
        size: Number of elements.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        """Take samples into the statistics, order-independently (Chan, Golub & LeVeque 1983, eq. 2.1).

        Args:
            batch: Samples, shape (n, size).

        Raises:
            ValueError: The shape is another one, or a sample is NaN or infinite. The statistics are unchanged then.
        """
        if batch.ndim != 2 or batch.shape[1] != self.mean.shape[0]:
            raise ValueError(f"batch must have shape (n, {self.mean.shape[0]}), got {tuple(batch.shape)}")
        if batch.shape[0] == 0:
            return
        samples = batch.to(torch.float64)
        if not torch.isfinite(samples).all():
            bad = torch.nonzero(~torch.isfinite(samples).all(dim=0)).flatten().tolist()
            raise ValueError(f"observations must be finite, got NaN or infinity in elements {bad}")
        n = float(samples.shape[0])
        var, mean = torch.var_mean(samples, dim=0, correction=0)
        total = self.count + n
        delta = mean - self.mean
        squares = self.var * self.count + var * n + delta.square() * (self.count * n / total)
        self.mean += delta * (n / total)
        self.var.copy_(squares / total)
        self.count.copy_(total)

    @property
    def shift(self) -> Tensor:
        """What is subtracted, float32, shape (size,)."""
        return self.mean.float()

    @property
    def gain(self) -> Tensor:
        """What the difference is multiplied by, 1 / sqrt(var + eps), float32, shape (size,)."""
        return torch.rsqrt(self.var + VARIANCE_EPS).float()

    def forward(self, x: Tensor) -> Tensor:
        """Normalised observations, same shape as `x`, within +-CLIP_SIGMA."""
        return ((x - self.shift) * self.gain).clamp(-CLIP_SIGMA, CLIP_SIGMA)
