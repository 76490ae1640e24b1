// Llm over a tiny random model whose 96 tokens are the printable characters, so that any text comes out.
#include "octet/api/llm.h"

#include <gtest/gtest.h>

#include "octet/api/output_stream.h"
#include "octet/base/file.h"
#include "octet/engine/tiny_model_for_test.h"

namespace octet {
namespace {

class LlmTest : public testing::Test {
 protected:
  LlmTest() {
    Json vocab = Json::object();
    for (int32_t id = 0; id < TinyModel::kVocabSize; ++id) vocab[std::string(1, static_cast<char>(' ' + id))] = id;
    const Json tokenizer = {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}},
                            {"decoder", {{"type", "Fuse"}}}};
    write_file(model_.options().model_folder + "/tokenizer.json", tokenizer.dump());
  }
  LlmOptions options() const {
    LlmOptions options;
    options.engine = model_.options();
    options.model = options.engine.model_folder;
    return options;
  }

  TinyModel model_;
};

TEST_F(LlmTest, AStopStringEndsItsSequenceInTheEngine) {
  constexpr int32_t kSequences = 16, kMaxTokens = 200;
  Llm llm(options());
  const SamplingParams params{.n = kSequences, .seed = 7, .stop = {"e", "ab"}, .max_tokens = kMaxTokens};
  const RequestOutput output = llm.generate(Prompt::of_text("some text"), params);
  ASSERT_EQ(output.outputs.size(), static_cast<size_t>(kSequences));
  int64_t num_read = 0, num_stopped = 0;
  for (const CompletionOutput& sequence : output.outputs) {
    num_read += static_cast<int64_t>(sequence.token_ids.size());
    EXPECT_EQ(sequence.text.find('e'), std::string::npos);
    if (sequence.finish_reason == FinishReason::kStop) {
      ++num_stopped;
      EXPECT_TRUE(std::holds_alternative<std::string>(sequence.stop_reason));
    } else {
      EXPECT_EQ(sequence.finish_reason, FinishReason::kLength);
      EXPECT_EQ(sequence.token_ids.size(), static_cast<size_t>(kMaxTokens));
    }
  }
  EXPECT_GT(num_stopped, kSequences / 2);
  // The engine learns of an end while it makes the next tokens, some of which nobody reads. Going on until the last
  // sequence had ended, it would have made nearly all.
  const EngineMetrics metrics = llm.engine().metrics();
  EXPECT_GE(metrics.generated_tokens, num_read);
  EXPECT_LT(metrics.generated_tokens, (num_read + int64_t{kSequences} * kMaxTokens) / 2);
  EXPECT_EQ(metrics.num_running + metrics.num_waiting, 0);
  EXPECT_EQ(metrics.kv_usage, 0.0);
}

TEST(OutputStream, SaysWhichSequencesAStopStringEnded) {
  const Tokenizer tokenizer(
      R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2},"merges":[]},"decoder":{"type":"Fuse"}})",
      "tokenizer.json");
  OutputStream stream(&tokenizer, SamplingParams{.n = 3, .stop = {"ab"}}, RequestOutput{});
  const auto apply = [&](std::vector<SequenceDelta> of_sequences) {
    std::vector<OutputDelta> deltas;
    RequestEvent event;
    event.deltas = std::move(of_sequences);
    stream.apply(event, deltas);
    return deltas.size();
  };
  const auto delta = [](int32_t index, int32_t token, FinishReason reason = FinishReason::kNone) {
    SequenceDelta result{.index = index};
    result.token_ids = {token};
    result.finish_reason = reason;
    return result;
  };
  EXPECT_EQ(apply({delta(0, 0), delta(1, 0), delta(2, 0)}), 3u);
  EXPECT_TRUE(stream.newly_stopped().empty());
  // The engine has ended sequence 2 itself.
  EXPECT_EQ(apply({delta(0, 2), delta(1, 1), delta(2, 1, FinishReason::kLength)}), 3u);
  EXPECT_EQ(stream.newly_stopped(), std::vector<int32_t>{1});
  EXPECT_EQ(stream.output().outputs[1].finish_reason, FinishReason::kStop);
  EXPECT_EQ(apply({delta(1, 2)}), 0u);  // already made when the engine heard of it
  EXPECT_TRUE(stream.newly_stopped().empty());
  EXPECT_EQ(stream.output().outputs[1].text, "");
}

}  // namespace
}  // namespace octet
