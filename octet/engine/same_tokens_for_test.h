// What holds of every model and device: the tokens of requests do not depend on how the engine runs them.
#pragma once

#include "octet/engine/client_for_test.h"

namespace octet {

// Batched or not, planned ahead or not, in chunks or whole: the same tokens.
inline void expect_tokens_however_steps_are_made(const EngineOptions& options) {
  EngineOptions plain = options;
  plain.enable_prefix_caching = false;
  plain.async_scheduling = false;
  plain.max_num_seqs = 1;          // unbatched
  plain.max_queued_requests = 32;  // room for all of them at once
  const Tokens expected = run_together(plain);
  ASSERT_EQ(expected.size(), 10u);
  for (const auto& [id, sequences] : expected) {
    EXPECT_EQ(sequences.size(), id == "3" ? 3u : 1u);
    for (const auto& [index, tokens] : sequences) EXPECT_EQ(tokens.size(), static_cast<size_t>(8 + std::stoi(id)));
  }
  EXPECT_NE(expected.at("3").at(0), expected.at("3").at(1));

  const EngineOptions& batched = options;
  EXPECT_EQ(run_together(batched), expected);
  EngineOptions synchronous = batched;
  synchronous.async_scheduling = false;
  EXPECT_EQ(run_together(synchronous), expected);
  EngineOptions chunked = batched;
  chunked.max_num_batched_tokens = 5;
  EXPECT_EQ(run_together(chunked), expected);
  EngineOptions whole = batched;
  whole.enable_chunked_prefill = false;
  EXPECT_EQ(run_together(whole), expected);
  EngineOptions threads = batched;
  threads.num_threads = 2;
  EXPECT_EQ(run_together(threads), expected);
}

// Sequences that lose their memory and come again: the same tokens.
inline void expect_tokens_despite_preemption(const EngineOptions& roomy) {
  const Tokens expected = run_together(roomy);
  EngineOptions tight = roomy;
  tight.max_model_len = 56;
  Engine probe(tight);
  tight.kv_cache_memory_bytes = 14 * 4 * probe.report().kv_bytes_per_token;  // one sequence of 56 tokens
  EXPECT_EQ(run_together(tight), expected);
}

}  // namespace octet
