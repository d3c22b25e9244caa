"""A model and an evaluation -> what each part of the model is worth."""

from gradscope.ablation.lesions import DROPS, kendall_tau
from gradscope.ablation.periodic import PeriodicAblation
from gradscope.ablation.result import Ablation
from gradscope.ablation.run import ablate

__all__ = [
    "DROPS",
    "Ablation",
    "PeriodicAblation",
    "ablate",
    "kendall_tau",
]
