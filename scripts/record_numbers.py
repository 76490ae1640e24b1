#!/usr/bin/env python3
"""Records what ml_dtypes and numpy compute for octet's number conversions, for octet/tensor/numbers_test.cc:
tests/golden/numbers/numbers.txt.

A line is `<what> <value> <value> ...` in hexadecimal: for `<format>_codes` the F32 bits of all 256 codes; for a conversion
one fingerprint per CHUNK inputs, so that a difference is found to within a chunk. The test makes the same inputs by the
same rules (see `inputs`).

Casts of ml_dtypes to E4M3 turn overflow into NaN, to E5M2 into infinity; octet's saturate. So the values are clamped to the
largest finite value before the cast, which is octet's definition. NaNs count by their sign alone (payloads are not part of
the contract).

Needs numpy 2.4.6 and ml_dtypes 0.6.0 (other versions are refused); neither is needed to run the tests.
"""
import pathlib

import ml_dtypes
import numpy as np

PINS = {"numpy": (np, "2.4.6"), "ml_dtypes": (ml_dtypes, "0.6.0")}
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "numbers" / "numbers.txt"
CHUNK = 4096
NUM_RANDOM = 1 << 20

# name: (type, unsigned type, canonical NaN, bits of mantissa, first and last F32 exponent of its normal values)
FORMATS = {
    "f8_e4m3": (ml_dtypes.float8_e4m3fn, np.uint8, 0x7F, 3, 121, 135),
    "f8_e5m2": (ml_dtypes.float8_e5m2, np.uint8, 0x7E, 2, 113, 142),
    "f16": (np.float16, np.uint16, 0x7E00, 10, 113, 142),
    "bf16": (ml_dtypes.bfloat16, np.uint16, 0x7FC0, 7, 1, 254),
    "f32": (np.float32, np.uint32, 0x7FC00000, 23, 1, 254),
}


def mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's output function."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random_bits() -> np.ndarray:
    counter = np.arange(1, NUM_RANDOM + 1, dtype=np.uint64)
    return (mix(counter * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)).astype(np.uint32)


def midpoints(name: str) -> np.ndarray:
    """F32 bits of the values halfway between neighbours of a format, and of their F32 neighbours, with both signs: first
    those between subnormals, then those of the normal exponents and of one exponent more."""
    _, _, _, mantissa, first, last = FORMATS[name]
    step = np.ldexp(np.float64(1), first - 127 - mantissa)
    subnormal = ((np.arange(1 << mantissa) + 0.5) * step).astype(np.float32).view(np.uint32)
    exponent, fraction = np.meshgrid(np.arange(first, min(last + 1, 254) + 1), np.arange(1 << mantissa), indexing="ij")
    normal = (exponent << 23 | fraction << (23 - mantissa) | 1 << (22 - mantissa)).astype(np.uint32).ravel()
    middle = np.concatenate([subnormal, normal])
    three = np.stack([middle - 1, middle, middle + 1], axis=1).ravel()
    return np.concatenate([three, three | np.uint32(0x80000000)])


def canonical_bits(values: np.ndarray, name: str) -> np.ndarray:
    kind, unsigned, nan, *_ = FORMATS[name]
    assert values.dtype == kind, (values.dtype, kind)
    bits = values.view(unsigned)
    sign = bits & unsigned(1 << (bits.itemsize * 8 - 1))
    return np.where(np.isnan(values.astype(np.float32)), sign | unsigned(nan), bits)


def convert(values: np.ndarray, name: str) -> np.ndarray:
    kind = FORMATS[name][0]
    if name.startswith("f8"):
        largest = float(ml_dtypes.finfo(kind).max)
        values = np.clip(values, np.float32(-largest), np.float32(largest))
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(kind)


def fingerprints(bits: np.ndarray) -> list[str]:
    lines = []
    for start in range(0, len(bits), CHUNK):
        part = bits[start:start + CHUNK].astype(np.uint64)
        position = np.arange(1, len(part) + 1, dtype=np.uint64)
        lines.append(f"{int(np.sum(mix(part ^ position * np.uint64(0x9E3779B97F4A7C15)), dtype=np.uint64)):x}")
    return lines


def main() -> None:
    for name, (module, version) in PINS.items():
        assert module.__version__ == version, f"{name} {version} is needed, {module.__version__} is here"
    np.seterr(over="ignore")
    lines = []
    for name in ("f8_e4m3", "f8_e5m2"):
        codes = np.arange(256, dtype=np.uint8).view(FORMATS[name][0]).astype(np.float32)
        lines.append(" ".join([f"{name}_codes"] + [f"{x:x}" for x in canonical_bits(codes, "f32")]))
    sources = {}
    for name in ("bf16", "f16"):
        values = np.arange(65536, dtype=np.uint16).view(FORMATS[name][0]).astype(np.float32)
        lines.append(" ".join([f"{name}_to_f32"] + fingerprints(canonical_bits(values, "f32"))))
        sources[name] = values
    random = random_bits().view(np.float32)
    for target in ("f8_e4m3", "f8_e5m2", "bf16", "f16"):
        cases = {"random": random, "midpoints": midpoints(target).view(np.float32)}
        if target.startswith("f8"):
            cases |= sources
        for source, values in cases.items():
            lines.append(" ".join([f"{source}_to_{target}"] + fingerprints(canonical_bits(convert(values, target), target))))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(lines) + "\n")
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
