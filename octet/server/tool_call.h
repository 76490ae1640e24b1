// ToolCall: a function that a model calls, with the arguments as it wrote them; or the next piece of them.
#pragma once

#include <cstdint>
#include <string>

namespace octet {

struct ToolCall {
  std::string name;
  std::string arguments;   // the JSON that the model wrote, byte for byte
  bool continues = false;  // the arguments go on with those of the call before; no name
};

// How a template calls tools. kHermes: <tool_call>{"name", "arguments"}</tool_call> (Qwen, Hermes). kMistral:
// [TOOL_CALLS] and a list, or names and objects. kLlama3: an answer that is nothing but {"name", "parameters"}, several
// parted by ';'.
enum class ToolStyle : uint8_t { kNone, kHermes, kMistral, kLlama3 };

}  // namespace octet
