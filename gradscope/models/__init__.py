"""Names -> networks: plain, residual, dense, inception with heads, and torchvision's zoo."""

from gradscope.models.catalog import build, family, names
from gradscope.models.dense import DenseLayer, DenseNet, Transition
from gradscope.models.inception import (
    AuxiliaryHead,
    InceptionModule,
    InceptionOutputs,
    SmallInception,
)
from gradscope.models.residual import (
    PadShortcut,
    PlainUnit,
    ResidualUnit,
    SmallImageNet,
    set_survival,
)

__all__ = [
    "AuxiliaryHead",
    "DenseLayer",
    "DenseNet",
    "InceptionModule",
    "InceptionOutputs",
    "PadShortcut",
    "PlainUnit",
    "ResidualUnit",
    "SmallImageNet",
    "SmallInception",
    "Transition",
    "build",
    "family",
    "names",
    "set_survival",
]
