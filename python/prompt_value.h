// A prompt as Python gives it: text, or token ids.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "octet/api/llm.h"

namespace octet {

using PromptValue = std::variant<std::string, std::vector<int32_t>>;

inline Prompt to_prompt(PromptValue value) {
  if (auto* text = std::get_if<std::string>(&value)) return Prompt::of_text(std::move(*text));
  return Prompt::of_token_ids(std::move(std::get<std::vector<int32_t>>(value)));
}

}  // namespace octet
