"""A model and an evaluation -> what each part is worth, and which ways gradients take."""

from gradscope.ablation.features import FeatureReuse, feature_reuse
from gradscope.ablation.headshare import HeadShare, head_share
from gradscope.ablation.lesions import DROPS, kendall_tau
from gradscope.ablation.paths import PathProfile, path_profile
from gradscope.ablation.periodic import PeriodicAblation
from gradscope.ablation.result import Ablation
from gradscope.ablation.run import ablate
from gradscope.ablation.shattering import LineNet, Shattering, shattering

__all__ = [
    "DROPS",
    "Ablation",
    "FeatureReuse",
    "HeadShare",
    "LineNet",
    "PathProfile",
    "PeriodicAblation",
    "Shattering",
    "ablate",
    "feature_reuse",
    "head_share",
    "kendall_tau",
    "path_profile",
    "shattering",
]
