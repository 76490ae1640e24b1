// Checkpoints with an 8-bit KV cache that llm-compressor wrote (scripts/record_quantised.py), served whole: the logits
// that compressed-tensors computes of the same files.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "octet/base/file.h"
#include "octet/engine/client_for_test.h"
#include "tests/checkpoints/tiny_llama.h"

namespace octet {
namespace {

constexpr int64_t kPiece = 4;

std::vector<float> values_of(const SafetensorsFolder& files, const std::string& name) {
  const ConstTensor tensor = files.tensor(name);
  const float* values = tensor.data<float>();
  return {values, values + tensor.num_elements()};
}

// The recorded file lies beside model.safetensors, which is the only one a folder's reader maps.
struct Golden {
  explicit Golden(const std::string& name) {
    folder.write("model.safetensors", read_file(golden_checkpoint(name) + "/golden.safetensors", 1 << 20));
    const SafetensorsFolder files(folder.path());
    logits = values_of(files, "package_logits");
    const auto* ids = files.tensor("input_ids").data<int32_t>();
    input_ids.assign(ids, ids + files.tensor("input_ids").num_elements());
  }
  TestFolder folder;
  std::vector<float> logits;
  std::vector<int32_t> input_ids;
};

std::vector<float> logits_of(Engine& engine, const std::vector<int32_t>& ids) {
  std::vector<std::map<int64_t, std::vector<float>>> rows(ids.size() / kPiece);
  Client client;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto first = ids.begin() + static_cast<int64_t>(i) * kPiece;
    Request request = make_request(std::to_string(i), {first, first + kPiece}, {.temperature = 0.0, .max_tokens = 1});
    request.row_scope = Request::RowScope::kAll;
    request.on_logits = [&rows, i](int64_t position, std::span<const float> logits) {
      rows[i][position].assign(logits.begin(), logits.end());
    };
    client.submit(engine, std::move(request));
  }
  client.wait();
  std::vector<float> logits;
  for (const auto& piece : rows) {
    for (const auto& [position, row] : piece) logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

// The largest difference of a row by its largest magnitude, of all rows in order.
std::vector<float> row_errors(const std::vector<float>& found, const std::vector<float>& expected, size_t columns) {
  EXPECT_EQ(found.size(), expected.size());
  std::vector<float> errors;
  for (size_t begin = 0; begin < std::min(found.size(), expected.size()); begin += columns) {
    float difference = 0.0f, largest = 0.0f;
    for (size_t i = begin; i < begin + columns; ++i) {
      const float d = std::fabs(found[i] - expected[i]);
      difference = d <= difference ? difference : d;  // NaN stays
      largest = std::max(largest, std::fabs(expected[i]));
    }
    errors.push_back(difference / largest);
  }
  std::sort(errors.begin(), errors.end());
  return errors;
}

TEST(RecordedKvCache, LogitsAreThePackages) {
  for (const std::string name : {"ct_fp8_kv", "ct_fp8_kv_heads"}) {
    SCOPED_TRACE(name);
    const Golden golden(name);
    EngineOptions options = tiny_options(golden.folder);
    options.model_folder = golden_checkpoint(name);
    options.dtype = "float32";
    Engine engine(options);
    EXPECT_EQ(engine.report().kv_cache_dtype, "f8_e4m3");
    EXPECT_EQ(engine.report().kv_scales, "2 of 2 KV scales loaded");
    const std::vector<float> errors = row_errors(logits_of(engine, golden.input_ids), golden.logits, 64);
    EXPECT_LT(errors[errors.size() * 9 / 10 - 1], 1e-4f);  // as expect_same_but_for_flips of tests/models
    EXPECT_LT(errors.back(), 0.25f);
  }
}

}  // namespace
}  // namespace octet
