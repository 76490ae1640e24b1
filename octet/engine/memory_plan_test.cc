#include "octet/engine/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>

#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/engine/tiny_model_for_test.h"

namespace octet {
namespace {

using testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;

// 1000 MiB of weights, 1 MiB per 10 tokens of a step, 2 MiB per block of 16 tokens.
MemoryNeeds some_needs() {
  return {.weight_bytes = 1000 * kMiB,
          .weights = "bf16",
          .fp8_weight_bytes = [] { return 600 * kMiB; },
          .activation_bytes = [](int64_t num_tokens, int64_t) { return num_tokens * kMiB / 10; },
          .max_num_batched_tokens = 2000,
          .bytes_per_block = 2 * kMiB,
          .block_size = 16,
          .max_model_len = 1600};
}

std::string error_of(const MemoryNeeds& needs, int64_t available_bytes) {
  try {
    check_memory(needs, available_bytes);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMemory);
    return error.what();
  }
  return "";
}

TEST(MemoryPlan, TheSumCountsNotEachPart) {
  EXPECT_EQ(error_of(some_needs(), 1400 * kMiB), "");  // 1000 + 200 + 200
  const std::string error = error_of(some_needs(), 1400 * kMiB - 1);
  EXPECT_THAT(error, HasSubstr("memory: 1.37 GiB are needed, 1.37 GiB are available: weights 1000.0 MiB (bf16), "
                               "activations 200.0 MiB (max_num_batched_tokens 2000), KV cache 200.0 MiB (one sequence "
                               "of max_model_len 1600 tokens)"));
}

TEST(MemoryPlan, SaysWhatWouldFit) {
  EXPECT_THAT(error_of(some_needs(), 1300 * kMiB),
              HasSubstr("what would fit: max_model_len of at most 800, or max_num_batched_tokens of at most 1000"));
  EXPECT_THAT(error_of(some_needs(), 1201 * kMiB), HasSubstr("fit: max_num_batched_tokens of at most 10"));
  EXPECT_THAT(error_of(some_needs(), 1150 * kMiB), HasSubstr("; a smaller model, or smaller max_model_len and"));
  EXPECT_THAT(error_of(some_needs(), 900 * kMiB),
              HasSubstr("; the weights alone do not fit; with quantization \"fp8\" they need 600.0 MiB"));
  MemoryNeeds quantised = some_needs();
  quantised.fp8_weight_bytes = [] { return std::nullopt; };
  EXPECT_TRUE(error_of(quantised, 900 * kMiB).ends_with("; the weights alone do not fit"));
  // And it does fit.
  MemoryNeeds shorter = some_needs(), narrower = some_needs();
  shorter.max_model_len = 800;
  narrower.max_num_batched_tokens = 1000;
  EXPECT_EQ(error_of(shorter, 1300 * kMiB), "");
  EXPECT_EQ(error_of(narrower, 1300 * kMiB), "");
}

TEST(MemoryPlan, TheUsersCacheSizeCounts) {
  MemoryNeeds needs = some_needs();
  needs.kv_cache_memory_bytes = 500 * kMiB;
  EXPECT_EQ(error_of(needs, 1700 * kMiB), "");
  EXPECT_THAT(error_of(needs, 1600 * kMiB),
              HasSubstr("KV cache 500.0 MiB (kv_cache_memory_bytes); what would fit: kv_cache_memory_bytes of at most "
                        "400.0 MiB, or max_num_batched_tokens of at most 1000"));
}

// Of a real model, before any of it is allocated: layers that no machine can hold.
TEST(MemoryPlan, AModelTooLargeIsRefusedAtOnce) {
  const TinyModel model;
  EngineOptions options = model.options();
  const std::string path = options.model_folder + "/config.json";
  const std::string tiny = read_file(path, 1 << 20);
  const auto error_with = [&](const std::map<std::string, std::string>& fields) -> std::string {
    std::string config = tiny;
    for (const auto& [field, value] : fields)
      config = std::regex_replace(config, std::regex("\"" + field + "\": [0-9]+"), "\"" + field + "\": " + value);
    write_file(path, config);
    try {
      const Engine engine(options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMemory);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(error_with({{"intermediate_size", "1000000"}, {"num_hidden_layers", "1000"}, {"hidden_size", "8192"}}),
              HasSubstr("weights alone do not fit; with quantization \"fp8\" they need "));
  const std::string too_long = error_with({{"max_position_embeddings", "1000000000"}, {"num_hidden_layers", "60"}});
  EXPECT_THAT(too_long, HasSubstr("one sequence of max_model_len 1000000000 tokens); what would fit: max_model_len"));
  std::smatch most;
  ASSERT_TRUE(std::regex_search(too_long, most, std::regex("max_model_len of at most ([0-9]+)")));
  options.max_model_len = std::stoll(most[1]) / 2;  // the machine's free memory moves
  EXPECT_EQ(Engine(options).report().max_model_len, *options.max_model_len);
}

}  // namespace
}  // namespace octet
