"""PoolingParams: how LLM.embed makes vectors, with vLLM's names."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class PoolingParams:
    """``dimensions``: the vector's first ones alone (Matryoshka models). ``normalize``: to length 1; None: as the model's files say."""

    dimensions: int | None = None
    normalize: bool | None = None
