"""Names of components: every id that a callback or the browser script relies on, once.

Must never know what a component shows.
"""

from __future__ import annotations

from typing import Final

# frame
URL: Final = "url"
THEME: Final = "theme"
VERSION: Final = "version"
TICK: Final = "tick"
TITLED: Final = "titled"
RAIL: Final = "rail"
CHIPS: Final = "chips"
TOOLS: Final = "tools"
LIVE: Final = "live-sign"
STEP: Final = "step-control"
STEP_SLIDER: Final = "step-slider"
STEP_LABEL: Final = "step-label"
BODY: Final = "page"
TOAST: Final = "toast"
DOWNLOAD: Final = "download"

# what the browser script finds by name; it holds the same words
SHORTCUTS: Final = "shortcuts"
THEME_SWITCH: Final = "theme-switch"
PAUSE_SWITCH: Final = "pause-switch"
NEWEST_STEP: Final = "newest-step"

# drawer of one layer
DRAWER: Final = "drawer"
DRAWER_CLOSE: Final = "drawer-close"
DRAWER_HEAD: Final = "drawer-head"
DRAWER_FOOT: Final = "drawer-foot"
DRAWER_CURVES: Final = "drawer-curves"
DRAWER_HISTOGRAM: Final = "drawer-histogram"

# overview
OVERVIEW_TITLE: Final = "overview-title"
OVERVIEW_RUNS: Final = "overview-runs"
OVERVIEW_FINDINGS: Final = "overview-findings"

# flow
FLOW_TITLE: Final = "flow-title"
FLOW_CHOICES: Final = "flow-choices"
FLOW_PROFILE: Final = "flow-profile"
FLOW_HEATMAP: Final = "flow-heatmap"
FLOW_TABLE: Final = "flow-table"
FLOW_TABLE_HEAD: Final = "flow-table-head"
FLOW_TABLE_ROWS: Final = "flow-table-rows"

# compare
COMPARE_TITLE: Final = "compare-title"
COMPARE_CHOICES: Final = "compare-choices"
COMPARE_PROFILE: Final = "compare-profile"
COMPARE_TRAINING: Final = "compare-training"
COMPARE_DIFFERENCE: Final = "compare-difference"
COMPARE_PAIR: Final = "compare-pair"
COMPARE_TABLE: Final = "compare-table"

# ablation
ABLATION_TITLE: Final = "ablation-title"
ABLATION_CHOICES: Final = "ablation-choices"
ABLATION_BODY: Final = "ablation-body"
ABLATION_GRAPH: Final = "ablation-graph"

# findings
FINDINGS_TITLE: Final = "findings-title"
FINDINGS_CHOICES: Final = "findings-choices"
FINDINGS_LIST: Final = "findings-list"


def export(figure: str, form: str) -> dict[str, str]:
    """Id of one export button: the figure it exports and the format."""
    return {"type": "export", "figure": figure, "format": form}


def panel(graph: str) -> str:
    """Id of the panel around a graph; its class carries the loading state."""
    return f"{graph}-panel"


def message(graph: str) -> str:
    """Id of the sentence shown in place of a graph that has nothing to draw."""
    return f"{graph}-message"


def python(graph: str) -> str:
    """Id of the call that draws a graph, kept for the copy button."""
    return f"{graph}-python"


def caption(graph: str) -> str:
    """Id of the line that says how a graph's data was treated."""
    return f"{graph}-caption"
