// model.safetensors.index.json: which shard holds which tensor.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

inline constexpr std::string_view kSafetensorsIndexName = "model.safetensors.index.json";

struct SafetensorsIndex {
  std::map<std::string, std::string, std::less<>> weight_map;  // tensor -> shard, a plain file name
  std::vector<std::string> shards() const;                     // each once, sorted
};

// Throws Error{kModel}: not JSON, no weight_map, a tensor named twice, a shard that is not a plain *.safetensors file
// name.
SafetensorsIndex parse_safetensors_index(std::string_view text, std::string_view path);
SafetensorsIndex read_safetensors_index(const std::string& path);

// Those of `names` that are not files of `folder`.
std::vector<std::string> missing_files(const std::string& folder, const std::vector<std::string>& names);

}  // namespace octet
