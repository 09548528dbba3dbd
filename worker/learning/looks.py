"""Other looks at the same maps: what lies between contributions and a heat map, one thing changed at a time.

Smoothing, border mask, mixture, the sources' weights, and the threshold where no refiner draws the box. The maps
need not be computed anew for any of them.
"""

from __future__ import annotations

from dataclasses import replace

from worker.parameters import Parameters

SMOOTHING = (0.6, 1.6)
"""Factors of the Gaussians' widths."""
WEIGHT = 3.0
"""How much more one source counts than it did."""
BORDERS = (0.0, 0.9)
THRESHOLDS = (0.6, 1.6)
"""Factors of the threshold."""


def looks(parameters: Parameters) -> dict[str, Parameters]:
    """What to call each other look → the parameters with it. The refiner and the score stay."""
    found = {
        f"maps smoothed {'less' if factor < 1 else 'more'}": replace(
            parameters,
            sources=tuple(replace(source, sigma=round(source.sigma * factor, 4)) for source in parameters.sources),
        )
        for factor in SMOOTHING
    }
    for border in BORDERS:
        if (parameters.border, parameters.border_kind) != (border, "soft"):
            name = "no border mask" if border == 0 else "a heavier border mask"
            found[name] = replace(parameters, border=border, border_kind="soft")
    mix = "arithmetic" if parameters.mix == "geometric" else "geometric"
    article = "an" if mix == "arithmetic" else "a"
    found[f"maps mixed in {article} {mix} mean"] = replace(parameters, mix=mix)
    if len(parameters.sources) > 1:  # the deepest one and the finest; how the others lie, the refiner weighs
        for place in (0, len(parameters.sources) - 1):
            source = parameters.sources[place]
            sources = list(parameters.sources)
            sources[place] = replace(source, weight=source.weight * WEIGHT)
            found[f"more of {source.name}"] = replace(parameters, sources=tuple(sources))
    if parameters.regression is None:
        for factor in THRESHOLDS:
            name = f"a {'lower' if factor < 1 else 'higher'} threshold"
            found[name] = replace(parameters, threshold=round(min(parameters.threshold * factor, 0.9), 4))
    return found
