"""Turns a statistic's name into the sentence that explains it to a reader.

Must never know Dash or runs.
"""

from __future__ import annotations

from gradscope.schema import TABLES

TERMS: dict[str, str] = {
    "depth profile": "Size of the loss gradient at every layer's output, ordered by depth: "
    "the input on the left, the loss on the right.",
    "decade": "A factor of ten.",
    "relative depth": "A layer's order of execution divided by that of the last one: 0 at the "
    "input, 1 at the loss. Nets of different depth compare on it.",
    "gradient rms": "Root of the mean square of the loss gradient's elements at a layer's output. "
    "Unlike the norm it does not depend on the tensor's size.",
    "gradient norm": "Square root of the sum of squares of the loss gradient. Tensors of "
    "different shape do not compare on it.",
    "activation rms": "Root of the mean square of a layer's output in the forward pass.",
    "update ratio": "Norm of the update really applied to a parameter divided by the norm of its "
    "weights. About 10⁻³ is a folk rule for a healthy value.",
    "attenuation": "How many decades the gradient loses (−) or gains (+) on its way from the loss "
    "to the input.",
    "skip share": "Share of a residual unit's gradient that arrives through its shortcut: "
    "a / (a + b), a through the shortcut, b through the branch.",
    "verdict": "What the diagnosis says of the run in one sentence; empty of complaints where the "
    "data shows none.",
    "sampled fraction": "Share of a tensor's elements that was read; 1 means every one.",
    "dead units": "Channels whose output was zero for every sample seen.",
    "baseline": "The run that differences are taken against; star a run to choose it.",
    "lesion": "Bypassing a part of a trained network and measuring again, without retraining.",
    "difference": "Metric with the part dropped minus the metric of the intact network.",
    "magnitude histogram": "How many elements of a tensor have each power of two as magnitude.",
    "confidence": "How sure the rule is that its pattern is in the data, between 0 and 1.",
}


def meaning(term: str) -> str:
    """The sentence behind a term: a word of the glossary or the name of a stored column.

    "" where the term is unknown.
    """
    if term in TERMS:
        return TERMS[term]
    for table in TABLES.values():
        for column in table.columns:
            if term in (column.name, column.label):
                return f"{column.meaning[:1].upper()}{column.meaning[1:]}."
    return ""
