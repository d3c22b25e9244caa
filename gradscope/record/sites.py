"""Names seen while training runs -> the run's list of sites, in order of execution.

Must never know statistics or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gradscope.schema import Site


class SiteList:
    """Sites by kind and name; positions never change, depths are filled in as they become known."""

    def __init__(self) -> None:
        self._index: dict[tuple[str, str], int] = {}
        self._sites: list[Site] = []
        self._module: list[str] = []
        self.changed = False

    def index(
        self,
        kind: str,
        name: str,
        *,
        module: str,
        module_type: str = "",
        shape: tuple[int, ...] = (),
        parameters: int = 0,
    ) -> int:
        """Position of a site, which is added when it is new; `module` is the path it belongs to."""
        found = self._index.get((kind, name))
        if found is None:
            found = self._index[kind, name] = len(self._sites)
            self._sites.append(Site(name, kind, -1, module_type, shape, parameters))
            self._module.append(module)
            self.changed = True
        return found

    def known(self, kind: str, name: str) -> int | None:
        """Position of a site, or None."""
        return self._index.get((kind, name))

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of a site's tensor."""
        return self._sites[index].shape

    def counts(self) -> dict[str, int]:
        """How many sites there are of each kind."""
        kinds = [site.kind for site in self._sites]
        return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}

    def ordered(self, order: Mapping[str, int]) -> list[Site]:
        """All sites with their depths: outputs as first returned, others as their module ran.

        `order` gives each module's place in the order of first calls.
        """
        self.changed = False
        depth: dict[int, int] = {}
        for kind in {site.kind for site in self._sites}:
            members = [i for i, site in enumerate(self._sites) if site.kind == kind]
            if kind != "output":
                members.sort(key=lambda i: (order.get(self._module[i], len(order)), i))
            depth.update({i: place for place, i in enumerate(members)})
        return [replace(site, depth=depth[i]) for i, site in enumerate(self._sites)]
