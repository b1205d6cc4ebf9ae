"""Forward decay in integers: weights of different ages add up, and a withdrawal restores the sum exactly.

Time is cut into generations of equal length. A weight of generation g is multiplied by about 2**(age of g / half-life)
when it is added, so that what was added earlier counts for less without being touched (Cormode, Shkapenyuk,
Srivastava, Xu 2009, *Forward decay*). The factor is `m << n`: a 17-bit mantissa and a whole number of doublings. Sums
are shifted right by whole doublings once the oldest generation that can still be withdrawn has some to spare: the
shift is exact for every weight that can still be taken back, and rounds down only the others.
"""

from __future__ import annotations

from dataclasses import dataclass

ONE = 1 << 16
"""Fixed point: a weight of 1 in a row, and the mantissa of a factor of 1."""

LEAST_HALF_LIVES = 4
"""A generation may span at most so many half-lives, or a sum of a million customers would not fit 63 bits."""


@dataclass(frozen=True)
class Decay:
    """Generations and their factors.

    Parameters
    ----------
    period : length of a generation, ms
    half_life : ms; ValueError where it is below period / 4

    >>> decay = Decay(period=10, half_life=20)
    >>> [decay.factor(generation, landmark=5) / ONE for generation in (5, 7, 9)]
    [1.0, 2.0, 4.0]
    """

    period: int
    half_life: int

    def __post_init__(self) -> None:
        if self.half_life * LEAST_HALF_LIVES < self.period:
            raise ValueError(
                f"graph.half_life of {self.half_life} ms is too short: weights are kept in generations of "
                f"{self.period} ms (graph.customer_period, at least the return window); make it at least "
                f"{-(-self.period // LEAST_HALF_LIVES)} ms"
            )

    def generation(self, ts: int) -> int:
        """The generation of a time in ms."""
        return ts // self.period

    def doublings(self, generation: int, landmark: int) -> int:
        """Whole doublings between the landmark generation and this one."""
        return (generation - landmark) * self.period // self.half_life

    def factor(self, generation: int, landmark: int, shift: int = 0) -> int:
        """Factor of a generation, fixed point (ONE = 1 at the landmark), after sums were shifted right by `shift`."""
        whole, rest = divmod((generation - landmark) * self.period, self.half_life)
        mantissa = int(2.0 ** (rest / self.half_life) * ONE + 0.5)
        return mantissa << (whole - shift) if whole >= shift else mantissa >> (shift - whole)
