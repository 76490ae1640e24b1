// The program `octet`. Exit status: 0 ok, 1 run time, 2 usage, 3 model, 4 memory.
#include <algorithm>
#include <cstdio>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "octet/base/build_facts.h"
#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/device/device.h"
#include "tools/commands.h"

namespace octet {
namespace {

constexpr void (*kCommands[])(CLI::App&) = {add_generate, add_chat,       add_convert,  add_inspect,
                                            add_tokenize, add_detokenize, add_render,   add_logits,
                                            add_bench,    add_eval,       add_quantize, add_serve};

std::string version_text() {
  std::string gpu = why_no_gpu();
  gpu = gpu.empty() ? gpu_properties(parse_device("cuda")).name : fmt::format("none ({})", gpu);
  return fmt::format("octet {} ({})\n{}, {} build{}\nprocessor: {}\nGPU: {}", build::kVersion, build::kCommit,
                     build::kCompiler, build::kBuildType,
                     *build::kSanitize ? fmt::format(", -fsanitize={}", build::kSanitize) : std::string(),
                     cpu_description(), gpu);
}

// vLLM's users write --max_model_len as well as --max-model-len.
std::vector<std::string> with_dashes(int argc, char** argv) {
  std::vector<std::string> args;
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i];
    if (arg.rfind("--", 0) == 0)
      std::replace(arg.begin(), arg.begin() + static_cast<std::ptrdiff_t>(std::min(arg.find('='), arg.size())), '_',
                   '-');
    args.push_back(std::move(arg));
  }
  return args;
}

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// The known flag or subcommand nearest to a mistyped argument; empty when none is near.
std::string nearest(const CLI::App& app, const std::string& argument) {
  std::set<std::string> known;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) known.insert("--" + name);
  }
  for (const CLI::App* command : app.get_subcommands(nullptr)) known.insert(command->get_name());
  std::string best;
  size_t best_distance = 4;
  for (const std::string& name : known) {
    const size_t distance = edit_distance(argument, name);
    if (distance < best_distance) {
      best = name;
      best_distance = distance;
    }
  }
  return best;
}

const CLI::App& deepest(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? app : deepest(*chosen.back());
}

std::string path_of(const CLI::App& app) {
  return app.get_parent() ? path_of(*app.get_parent()) + " " + app.get_name() : app.get_name();
}

int usage_error(const CLI::App& program, const CLI::ParseError& error, const std::vector<std::string>& args) {
  const CLI::App& command = deepest(program);
  std::string hint;
  for (const std::string& arg : args) {
    const std::string name = arg.substr(0, arg.find('='));
    const bool named = std::string(error.what()).find(name) != std::string::npos;
    if (named && name.size() > 2) {
      const std::string near = nearest(command, name);
      if (!near.empty() && near != name) hint = fmt::format(" Did you mean {}?", near);
    }
  }
  log_line(LogLevel::kError, fmt::format("{}.{} See: {} --help", error.what(), hint, path_of(command)));
  return exit_status(ErrorCode::kUsage);
}

int run(int argc, char** argv) {
  CLI::App program(
      "octet: serves large language models in 8 bits.\n"
      "MODEL is a local folder or a name in the Hugging Face cache (org/name).",
      "octet");
  program.set_version_flag("--version", version_text);
  program.require_subcommand(1);
  program.footer(
      "Start here:\n  octet generate MODEL -p \"Hello, my name is\"\n  octet chat MODEL --quantization fp8\n"
      "  octet inspect MODEL\nEach subcommand explains itself: octet <subcommand> --help");
  for (const auto add : kCommands) add(program);
  std::vector<std::string> args = with_dashes(argc, argv);
  const std::vector<std::string> given = args;
  std::reverse(args.begin(), args.end());  // CLI11 takes them last first
  try {
    program.parse(args);  // runs the chosen subcommand's callback
  } catch (const CLI::RuntimeError& ended) {
    return ended.get_exit_code();  // it has said why
  } catch (const CLI::Success& success) {
    return program.exit(success);  // --help, --version
  } catch (const CLI::ParseError& error) {
    return usage_error(program, error, given);
  }
  return 0;
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) {
  try {
    return octet::run(argc, argv);
  } catch (const octet::Error& error) {
    octet::log_line(octet::LogLevel::kError, error.what());
    return octet::exit_status(error.code());
  } catch (const std::bad_alloc&) {
    octet::log_line(octet::LogLevel::kError, "out of memory");
    return octet::exit_status(octet::ErrorCode::kMemory);
  } catch (const std::exception& error) {
    octet::log_line(octet::LogLevel::kError, error.what());
    return 1;
  }
}
