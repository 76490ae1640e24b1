#include "octet/text/chat_tokens.h"

#include <array>
#include <filesystem>
#include <string_view>

#include "octet/base/json.h"

namespace octet {
namespace {

constexpr std::array<std::string_view, 4> kNames = {"bos_token", "eos_token", "unk_token", "pad_token"};
constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

void read_tokens(const std::string& path, std::map<std::string, std::string>& tokens) {
  if (!std::filesystem::exists(path)) return;
  const Json json = read_json_file(path, kMaxConfigBytes);
  const JsonObject object(json, path);
  for (const std::string_view name : kNames) {
    const Json* value = object.find_raw(name);
    if (!value) continue;
    // A plain string, or {"content": "<s>", "lstrip": ...}.
    std::string text = value->is_object() ? JsonObject(*value, path + ": " + std::string(name)).get_string("content")
                                          : object.get_string(name);
    tokens.try_emplace(std::string(name), std::move(text));
  }
}

}  // namespace

std::map<std::string, std::string> special_tokens_of_folder(const std::string& folder) {
  std::map<std::string, std::string> tokens;
  read_tokens(folder + "/tokenizer_config.json", tokens);
  read_tokens(folder + "/special_tokens_map.json", tokens);
  return tokens;
}

}  // namespace octet
