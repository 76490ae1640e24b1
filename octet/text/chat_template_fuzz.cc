// Any bytes as a chat template, rendered with fixed messages under tight limits: only octet::Error may come out.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "octet/base/error.h"
#include "octet/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace octet;
  static const Json kMessages = Json::parse(R"([
    {"role": "system", "content": "Be \"kind\" & <short>."},
    {"role": "user", "content": [{"type": "text", "text": "H\u00e9llo \u4f60"}, {"type": "image"}]},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": [1, 2.5, null]}}}]},
    {"role": "tool", "content": "{\"x\": true}", "n": 18446744073709551615}])");
  try {
    const ChatTemplate chat(std::string_view(reinterpret_cast<const char*>(bytes), size), "fuzz");
    ChatInputs inputs;
    inputs.messages = kMessages;
    inputs.tools =
        Json::parse(R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])");
    inputs.bos_token = "<s>";
    inputs.now_unix_seconds = 1721990096;
    chat.render_spans(inputs, RenderLimits{.max_steps = 20'000, .max_output_bytes = 1 << 16, .max_depth = 50});
  } catch (const Error&) {
  }
  return 0;
}
