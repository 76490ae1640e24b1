// The subcommands of `octet`: each file adds its own to the program and runs it in a callback.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

namespace octet {

void add_generate(CLI::App& program);
void add_chat(CLI::App& program);
void add_convert(CLI::App& program);
void add_inspect(CLI::App& program);
void add_tokenize(CLI::App& program);
void add_detokenize(CLI::App& program);
void add_render(CLI::App& program);
void add_logits(CLI::App& program);
void add_bench(CLI::App& program);
void add_bench_serve(CLI::App& bench);
void add_eval(CLI::App& program);
void add_eval_task(CLI::App& eval);
void add_quantize(CLI::App& program);
void add_serve(CLI::App& program);

}  // namespace octet
