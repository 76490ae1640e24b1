#include "octet/api/pooling.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "octet/base/error.h"
#include "octet/base/json.h"

namespace octet {
namespace {

constexpr const char* kPoolingModule = "sentence_transformers.models.Pooling";
constexpr const char* kNormalizeModule = "sentence_transformers.models.Normalize";

PoolingType type_of_module(const std::string& path) {
  const Json config = read_json_file(path);
  if (!config.is_object()) fail(ErrorCode::kModel, "{}: expected an object", path);
  constexpr const char* kMode = "pooling_mode_";
  std::vector<std::string> modes;
  for (const auto& [key, value] : config.items()) {
    if (key.starts_with(kMode) && value == true) modes.push_back(key);
  }
  if (modes == std::vector<std::string>{"pooling_mode_mean_tokens"}) return PoolingType::kMean;
  if (modes == std::vector<std::string>{"pooling_mode_lasttoken"}) return PoolingType::kLast;
  fail(ErrorCode::kUnsupported, "{}: expected pooling_mode_mean_tokens or pooling_mode_lasttoken alone, found {}", path,
       modes.empty() ? "none" : fmt::format("{}", fmt::join(modes, ", ")));
}

}  // namespace

PoolingChoice PoolingChoice::of_folder(const std::string& folder) {
  PoolingChoice choice;
  const std::string path = folder + "/modules.json";
  if (!std::filesystem::exists(path)) return choice;
  const Json modules = read_json_file(path);
  if (!modules.is_array()) fail(ErrorCode::kModel, "{}: expected a list", path);
  choice.normalize = false;
  for (const Json& module : modules) {
    if (!module.is_object()) fail(ErrorCode::kModel, "{}: expected objects in the list", path);
    const Json type = module.value("type", Json()), place = module.value("path", Json());
    if (type == kNormalizeModule) choice.normalize = true;
    if (type != kPoolingModule) continue;
    if (!place.is_string()) fail(ErrorCode::kModel, "{}: the pooling module has no path", path);
    const std::filesystem::path inside = place.get<std::string>();
    if (inside.is_absolute() || std::find(inside.begin(), inside.end(), "..") != inside.end()) {
      fail(ErrorCode::kModel, "{}: the pooling module's path must lie in the model's folder, found {}", path,
           inside.string());
    }
    choice.type = type_of_module(folder + "/" + inside.string() + "/config.json");
  }
  return choice;
}

PoolingChoice PoolingChoice::of_config(const std::string& json, PoolingChoice defaults) {
  const Json config = Json::parse(json, nullptr, false);
  if (!config.is_object()) fail(ErrorCode::kUsage, "--pooler-config: expected a JSON object, found {}", json);
  for (const auto& [key, value] : config.items()) {
    if (key == "pooling_type" || key == "seq_pooling_type") {
      if (value != "LAST" && value != "MEAN") {
        fail(ErrorCode::kUsage, "--pooler-config: {}: expected \"LAST\" or \"MEAN\", found {}", key, value.dump());
      }
      defaults.type = value == "MEAN" ? PoolingType::kMean : PoolingType::kLast;
    } else if (key == "normalize" || key == "use_activation") {
      if (!value.is_boolean()) {
        fail(ErrorCode::kUsage, "--pooler-config: {}: expected true or false, found {}", key, value.dump());
      }
      defaults.normalize = value.get<bool>();
    } else {
      fail(ErrorCode::kUsage, "--pooler-config: {}: expected pooling_type and normalize", key);
    }
  }
  return defaults;
}

void Pooler::add(std::span<const float> hidden) {
  ++count_;
  if (type_ == PoolingType::kLast || sum_.empty()) {
    sum_.assign(hidden.begin(), hidden.end());
    return;
  }
  OCTET_CHECK(hidden.size() == sum_.size());
  for (size_t i = 0; i < hidden.size(); ++i) sum_[i] += static_cast<double>(hidden[i]);
}

std::vector<float> Pooler::pooled() const {
  const double by = type_ == PoolingType::kMean ? static_cast<double>(count_) : 1.0;
  std::vector<float> vector(sum_.size());
  std::transform(sum_.begin(), sum_.end(), vector.begin(), [by](double x) { return static_cast<float>(x / by); });
  return vector;
}

std::vector<float> finished_embedding(std::span<const float> pooled, int64_t dimensions, bool normalize) {
  if (dimensions > 0) pooled = pooled.first(std::min(pooled.size(), static_cast<size_t>(dimensions)));
  std::vector<float> vector(pooled.begin(), pooled.end());
  if (!normalize) return vector;
  double squares = 0.0;
  for (const float x : vector) squares += static_cast<double>(x) * static_cast<double>(x);
  if (squares == 0.0) return vector;
  const double length = std::sqrt(squares);
  for (float& x : vector) x = static_cast<float>(static_cast<double>(x) / length);
  return vector;
}

}  // namespace octet
