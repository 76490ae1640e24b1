#include "octet/quantizer/output_files.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "octet/base/error.h"

namespace octet {
namespace fs = std::filesystem;
namespace {

constexpr std::array<std::string_view, 13> kCopied = {"tokenizer.json",
                                                      "tokenizer_config.json",
                                                      "tokenizer.model",
                                                      "special_tokens_map.json",
                                                      "added_tokens.json",
                                                      "vocab.json",
                                                      "merges.txt",
                                                      "chat_template.jinja",
                                                      "chat_template.json",
                                                      "generation_config.json",
                                                      "preprocessor_config.json",
                                                      "processor_config.json",
                                                      "tekken.json"};

bool is_copied(const std::string& name) {
  return std::find(kCopied.begin(), kCopied.end(), name) != kCopied.end() || name.ends_with(".py") ||
         name.starts_with("LICENSE") || name.starts_with("NOTICE");
}

}  // namespace

Json read_plain_config(const std::string& folder) {
  const std::string path = (fs::path(folder) / "config.json").string();
  if (!fs::exists(path)) fail(ErrorCode::kModel, "{}: no config.json; is this a Hugging Face model folder?", folder);
  Json config = read_json_file(path);
  if (!config.is_object()) fail(ErrorCode::kModel, "{}: expected a JSON object", path);
  const bool modelopt = fs::exists(fs::path(folder) / "hf_quant_config.json");
  for (const char* key : {"quantization_config", "compression_config"}) {
    const auto it = config.find(key);
    if (modelopt || (it != config.end() && !it->is_null())) {
      fail(ErrorCode::kModel, "{}: the model is quantised already ({}); quantise its source instead", folder,
           modelopt ? "hf_quant_config.json" : key);
    }
  }
  return config;
}

void copy_model_files(const std::string& from, const std::string& to) {
  std::error_code error;
  for (fs::directory_iterator it(from, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!is_copied(name) || !fs::is_regular_file(it->path())) continue;  // also through the links of a hub cache
    fs::copy_file(it->path(), fs::path(to) / name, fs::copy_options::overwrite_existing, error);
    if (error) fail(ErrorCode::kIo, "{}: cannot copy to {}: {}", it->path().string(), to, error.message());
  }
  if (error) fail(ErrorCode::kIo, "{}: cannot list the folder: {}", from, error.message());
}

}  // namespace octet
