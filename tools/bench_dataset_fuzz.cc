// Any bytes as a file of ShareGPT conversations and as one of custom prompts: Error or as many prompts as asked for,
// each with a length that can be asked of a server.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "octet/base/error.h"
#include "tools/bench_dataset.h"

namespace {

// A letter, a space and a few more are tokens; all else is unknown.
octet::Tokenizer make() {
  std::string vocab = R"({"<unk>":0)";
  int id = 1;
  for (char c = 'a'; c <= 'z'; ++c) vocab += std::string(",\"") + c + "\":" + std::to_string(id++);
  return octet::Tokenizer(R"({"added_tokens":[{"id":0,"content":"<unk>","special":true}],"pre_tokenizer":null,
"model":{"type":"BPE","unk_token":"<unk>","vocab":)" +
                              vocab + R"(},"merges":[]}})",
                          "fuzz");
}

void check(const std::vector<octet::BenchPrompt>& prompts, size_t count) {
  if (prompts.size() != count) __builtin_trap();
  for (const octet::BenchPrompt& prompt : prompts) {
    if (prompt.output_len < 1 || prompt.num_tokens < 0) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace octet;
  static const Tokenizer tokenizer = make();
  constexpr int64_t kCount = 3;
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const std::optional<int64_t> output_len : {std::optional<int64_t>(), std::optional<int64_t>(7)}) {
    try {
      check(sharegpt_prompts(text, "file", kCount, output_len, 1, tokenizer), kCount);
    } catch (const Error&) {
    }
    try {
      check(custom_prompts(text, "file", kCount, output_len, tokenizer), kCount);
    } catch (const Error&) {
    }
  }
  return 0;
}
