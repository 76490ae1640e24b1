// The number that an answer to GSM8K gives, and whether it is the right one, as lm-evaluation-harness has it.
#pragma once

#include <string>
#include <string_view>

namespace octet {

inline constexpr std::string_view kNoAnswer = "[invalid]";

// What follows the first "#### ": its pattern is "#### (\-?[0-9\.\,]+)"; else kNoAnswer.
std::string strict_answer(std::string_view text);
// The last number anywhere: "(-?[$0-9.,]{2,})|(-?[0-9]+)"; else kNoAnswer.
std::string flexible_answer(std::string_view text);
// Equal but for case, commas, dollar signs, all up to "#### " and a full stop at the end.
bool same_answer(std::string_view found, std::string_view expected);

}  // namespace octet
