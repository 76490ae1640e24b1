#include "octet/checkpoint/safetensors_index.h"

#include <filesystem>
#include <set>

#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/json.h"

namespace octet {
namespace {

constexpr int64_t kMaxIndexBytes = int64_t{64} << 20;
constexpr int kMaxDepth = 16;

void check_shard_name(const std::string& shard, std::string_view tensor, std::string_view path) {
  const bool plain =
      !shard.empty() && shard.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos && shard[0] != '.';
  if (!plain || !shard.ends_with(".safetensors")) {
    fail(ErrorCode::kModel, "{}: {}: shard {} is not the plain name of a *.safetensors file", path, tensor,
         Json(shard).dump());
  }
}

// Takes the strings of "weight_map" and steps over the rest. Not a Json document: its objects find keys by walking.
class IndexReader : public nlohmann::json_sax<Json> {
 public:
  IndexReader(std::string_view path, SafetensorsIndex& index) : path_(path), index_(index) {}

  bool found_map() const { return found_map_; }

  bool start_object(std::size_t) override {
    if (depth_ == 1 && key_ == "weight_map") {
      if (found_map_) fail(ErrorCode::kModel, "{}: duplicate key \"weight_map\"", path_);
      found_map_ = in_map_ = true;
    } else if (in_map_) {
      not_a_string();
    }
    return deeper();
  }
  bool end_object() override {
    if (--depth_ == 1) in_map_ = false;
    return true;
  }
  bool start_array(std::size_t) override { return not_in_map() && deeper(); }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& text) override {
    key_ = text;
    return true;
  }
  bool string(string_t& text) override {
    if (!in_map_) return not_in_map();
    check_shard_name(text, key_, path_);
    if (!index_.weight_map.emplace(key_, text).second)
      fail(ErrorCode::kModel, "{}: duplicate key \"{}\" in weight_map", path_, key_);
    return true;
  }
  bool null() override { return not_in_map(); }
  bool boolean(bool) override { return not_in_map(); }
  bool number_integer(number_integer_t) override { return not_in_map(); }
  bool number_unsigned(number_unsigned_t) override { return not_in_map(); }
  bool number_float(number_float_t, const string_t&) override { return not_in_map(); }
  bool binary(binary_t&) override { return not_in_map(); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail(ErrorCode::kModel, "{}: not valid JSON at byte {}", path_, position);
  }

 private:
  [[noreturn]] void not_a_string() const {
    fail(ErrorCode::kModel, "{}: weight_map: {}: expected the name of a shard", path_, key_);
  }
  bool not_in_map() const {
    if (in_map_) not_a_string();
    if (depth_ == 0) fail(ErrorCode::kModel, "{}: expected a JSON object", path_);
    return true;
  }
  bool deeper() {
    if (++depth_ > kMaxDepth) fail(ErrorCode::kModel, "{}: JSON nested deeper than {}", path_, kMaxDepth);
    return true;
  }

  std::string_view path_;
  SafetensorsIndex& index_;
  std::string key_;
  int depth_ = 0;
  bool in_map_ = false;
  bool found_map_ = false;
};

}  // namespace

std::vector<std::string> SafetensorsIndex::shards() const {
  std::set<std::string> names;
  for (const auto& [tensor, shard] : weight_map) names.insert(shard);
  return {names.begin(), names.end()};
}

SafetensorsIndex parse_safetensors_index(std::string_view text, std::string_view path) {
  SafetensorsIndex index;
  IndexReader reader(path, index);
  Json::sax_parse(text.begin(), text.end(), &reader);
  if (!reader.found_map() || index.weight_map.empty())
    fail(ErrorCode::kModel, "{}: weight_map is missing or empty", path);
  return index;
}

SafetensorsIndex read_safetensors_index(const std::string& path) {
  return parse_safetensors_index(read_file(path, kMaxIndexBytes), path);
}

std::vector<std::string> missing_files(const std::string& folder, const std::vector<std::string>& names) {
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    if (!std::filesystem::is_regular_file(std::filesystem::path(folder) / name)) missing.push_back(name);
  }
  return missing;
}

}  // namespace octet
