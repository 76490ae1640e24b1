"""octet.quantize: a model in 8 bits, as a checkpoint that engines load."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import _octet


def _bar() -> Callable[[int, int], None] | None:
    """A line on stderr with the time left; nothing when that is no terminal."""
    if not sys.stderr.isatty():
        return None
    start = time.monotonic()

    def draw(done: int, total: int) -> None:
        share = done / total if total else 1.0
        left = (time.monotonic() - start) * (1 - share) / share if share else 0.0
        end = "\n" if done >= total else ""
        print(f"\rquantising {100 * share:.0f} %, {left:.0f} s left \033[K", end=end, file=sys.stderr, flush=True)

    return draw


def quantize(
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    scheme: str = "fp8_channel",
    activation_scheme: str | None = None,
    dialect: str | None = None,
    ignore: Sequence[str] = (),
    calibration: str | os.PathLike | Sequence[Sequence[int]] | None = None,
    num_samples: int = 128,
    max_seq_len: int = 2048,
    held_out: str | os.PathLike | None = None,
    num_held_out: int = 32,
    calibrate_all_experts: bool = False,
    kv_cache_scheme: str | None = None,
    recipe: str = "",
    smooth: str | float = "",
    plain_share: float = 0.02,
    headroom: int = 1,
    max_kld: float | None = None,
    resume: bool = False,
    num_threads: int = 0,
    max_shard_bytes: int = 4 << 30,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes `model` (a folder, or a name in the Hugging Face cache) in 8 bits to the folder `out` and returns the report.

    The arguments are those of `octet quantize`; see docs/quantize.md. `calibration` may be sequences of token ids in
    place of a file or folder. `out` appears when it is whole; a run that was
    interrupted is continued with resume=True. `on_progress(done, total)` may raise, which ends the run.
    """
    options = _octet.QuantizeOptions()
    options.model, options.out = os.fspath(model), os.fspath(out)
    options.scheme, options.activation_scheme, options.dialect = scheme, activation_scheme or "", dialect or ""
    options.ignore, options.resume, options.num_threads = list(ignore), resume, num_threads
    options.max_shard_bytes = max_shard_bytes
    if isinstance(calibration, str | os.PathLike):
        options.calibration = os.fspath(calibration)
    elif calibration is not None:
        options.calibration_tokens = [list(tokens) for tokens in calibration]
    options.num_samples, options.max_seq_len = num_samples, max_seq_len
    options.calibrate_all_experts = calibrate_all_experts
    options.kv_cache_scheme, options.recipe = kv_cache_scheme or "", recipe
    options.held_out, options.num_held_out = os.fspath(held_out or ""), num_held_out
    options.smooth, options.plain_share = str(smooth), plain_share
    options.headroom, options.max_kld = headroom, max_kld
    return json.loads(_octet.quantize(options, on_progress or _bar()))
