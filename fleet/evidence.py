"""Is the new policy worse? Bayesian comparison of two groups of robots at the same time. Pure; the generator is passed in.

Falls (drops, emergency stops) are Poisson events with a Gamma posterior per group; successes are Bernoulli with a Beta posterior; returns are
compared by their means with normal errors. Probabilities come from `draws` samples of the posteriors, good to about 0.005.
"""

from typing import Literal

import msgspec
import numpy as np

Verdict = Literal["rollback", "promote", "extend"]
DRAWS = 8192


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What a group lived through. Emergency stops (`stops`) are among the falls too."""

    episodes: int = 0
    successes: int = 0
    falls: int = 0
    trips: int = 0
    stops: int = 0
    hours: float = 0.0
    return_sum: float = 0.0
    return_sq_sum: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{f: getattr(self, f) + getattr(other, f) for f in self.__struct_fields__})


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When is enough known.

    Attributes:
        fall_ratio: Rates up to this times the control's are no worse.
        tolerable_falls_per_hour: Rates below this are no worse, whatever the control's.
        success_margin: A success rate lower by this is no worse.
        return_margin: A mean return lower by this many standard deviations (of the control's episodes) is no worse.
        rollback_above: Roll back when any measure is worse with more than this probability.
        promote_below: Go on when every measure is worse with less than this probability.
        look_growth: Judge again only when exposure has grown by this factor: every look is a chance to be wrong.
        hard_trips: Any safety trip of the candidate rolls back at once.
    """

    fall_ratio: float = 1.2
    tolerable_falls_per_hour: float = 0.05
    success_margin: float = 0.03
    return_margin: float = 0.5
    rollback_above: float = 0.995
    promote_below: float = 0.10
    look_growth: float = 1.5
    hard_trips: bool = True


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and the probabilities it rests on: that the candidate is worse by more than the margin."""

    verdict: Verdict
    worse: dict[str, float]

    def __str__(self) -> str:
        return f"{self.verdict} (P(worse): " + ", ".join(f"{k} {v:.3f}" for k, v in self.worse.items()) + ")"


def judge(candidate: Counts, control: Counts, rules: Rules, rng: np.random.Generator) -> Judgement:
    """Compare a candidate with its control group."""
    worse = {
        "falls": falls_worse(candidate, control, rules, rng),
        "success": success_worse(candidate, control, rules, rng),
        "return": return_worse(candidate, control, rules, rng),
    }
    top = max(worse.values())
    verdict: Verdict = "extend"
    if top > rules.rollback_above:
        verdict = "rollback"
    elif top < rules.promote_below:
        verdict = "promote"
    return Judgement(verdict=verdict, worse={k: round(v, 4) for k, v in worse.items()})


def falls_worse(candidate: Counts, control: Counts, rules: Rules, rng: np.random.Generator) -> float:
    """P(candidate's fall rate > max(ratio * control's, tolerable)). Jeffreys prior Gamma(1/2, 0+)."""
    ours = rng.gamma(candidate.falls + 0.5, 1.0 / max(candidate.hours, 1e-6), DRAWS)
    theirs = rng.gamma(control.falls + 0.5, 1.0 / max(control.hours, 1e-6), DRAWS)
    return float(np.mean(ours > np.maximum(rules.fall_ratio * theirs, rules.tolerable_falls_per_hour)))


def success_worse(candidate: Counts, control: Counts, rules: Rules, rng: np.random.Generator) -> float:
    """P(candidate's success rate < control's - margin). Jeffreys prior Beta(1/2, 1/2)."""
    ours = rng.beta(candidate.successes + 0.5, candidate.episodes - candidate.successes + 0.5, DRAWS)
    theirs = rng.beta(control.successes + 0.5, control.episodes - control.successes + 0.5, DRAWS)
    return float(np.mean(ours < theirs - rules.success_margin))


def return_worse(candidate: Counts, control: Counts, rules: Rules, rng: np.random.Generator) -> float:
    """P(candidate's mean return < control's - margin); 0.5 while there are not two episodes of each."""
    if min(candidate.episodes, control.episodes) < 2:
        return 0.5
    means, errors, stds = [], [], []
    for counts in (candidate, control):
        mean = counts.return_sum / counts.episodes
        variance = max(counts.return_sq_sum / counts.episodes - mean**2, 0.0) * counts.episodes / (counts.episodes - 1)
        means.append(mean)
        stds.append(variance**0.5)
        errors.append((variance / counts.episodes) ** 0.5)
    ours, theirs = (
        m + e * rng.standard_t(c.episodes - 1, DRAWS) for m, e, c in zip(means, errors, (candidate, control))
    )
    return float(np.mean(ours < theirs - rules.return_margin * stds[1] - 1e-9))
