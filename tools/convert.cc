// octet convert: a GGUF file to a Hugging Face folder.
#include "octet/base/log.h"
#include "octet/checkpoint/gguf.h"
#include "tools/commands.h"
#include "tools/terminal.h"

namespace octet {
namespace {

struct ConvertCommand {
  std::string gguf, out, dtype = "bf16";
  void run() const {
    GgufConversion conversion{.gguf_path = gguf, .out_folder = out};
    if (dtype == "bf16" || dtype == "bfloat16")
      conversion.dtype = DType::kBF16;
    else if (dtype == "f16" || dtype == "float16")
      conversion.dtype = DType::kF16;
    else
      conversion.dtype = DType::kF32;
    const GgufConversionReport report = convert_gguf(conversion);
    print_now(fmt::format("{}: {} tensors, {}\n", out, report.num_tensors, format_bytes(report.num_bytes)));
  }
};

}  // namespace

void add_convert(CLI::App& program) {
  auto command = std::make_shared<ConvertCommand>();
  CLI::App* app = program.add_subcommand("convert", "Turn a GGUF file into a Hugging Face model folder");
  app->add_option("gguf", command->gguf, "the GGUF file (llama architecture)")->required();
  app->add_option("-o,--out", command->out, "folder to write")->required();
  app->add_option("--dtype", command->dtype, "bf16, f16 or f32")
      ->check(CLI::IsMember({"bf16", "bfloat16", "f16", "float16", "f32", "float32"}))
      ->capture_default_str();
  app->callback([command] { command->run(); });
}

}  // namespace octet
