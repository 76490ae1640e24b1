#!/usr/bin/env python3
"""Prints the table that ends quickstart.sh. Usage: quickstart_table.py FOLDER, which holds bf16.json and fp8.json of
`octet bench latency --output-json` and kld.json of `octet eval kld --json`."""
import json
import pathlib
import sys

# (row, key in the report, what to multiply by, format)
ROWS = [
    ("weights", "weight_bytes", 1e-6, "{:,.1f} MB"),
    ("KV cache per token", "kv_bytes_per_token", 1, "{:,.0f} bytes"),
    ("load time", "load_seconds", 1, "{:.2f} s"),
    ("TTFT, 512 prompt tokens", "ttft_s", 1e3, "{:,.0f} ms"),
    ("prefill", "prefill_tokens_per_second", 1, "{:,.0f} tok/s"),
    ("decode, batch 1", "decode_tokens_per_second", 1, "{:,.1f} tok/s"),
    ("ITL", "itl_s", 1e3, "{:.2f} ms"),
]


def main():
    folder = pathlib.Path(sys.argv[1])
    bf16, fp8, kld = (json.loads((folder / name).read_text()) for name in ("bf16.json", "fp8.json", "kld.json"))
    table = [("", "BF16", "FP8")]
    for title, key, scale, shape in ROWS:
        table.append((title, shape.format(bf16[key] * scale), shape.format(fp8[key] * scale)))
    table.append(("KL divergence from BF16", "", f"{kld['kl_divergence_mean']:.5f} nats"))
    table.append(("top-1 agreement with BF16", "", f"{100 * kld['top1_agreement']:.2f} %"))
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    print()
    for number, row in enumerate(table):
        print(f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}")
        if number == 0:
            print("  " + "-" * (sum(widths) + 4))
    print(f"\n  KL divergence and agreement over {kld['num_tokens']:,} tokens.")


if __name__ == "__main__":
    main()
