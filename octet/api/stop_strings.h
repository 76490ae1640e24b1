// Watches one streamed text for stop strings that may begin in one piece and end in a later one. Text that could still
// be the beginning of a stop string is held back, so that nothing of a match ever leaves.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

class StopStrings {
 public:
  // Empty strings are not allowed (SamplingParams::validate).
  explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  struct Result {
    std::string text;                    // safe to hand out now
    std::optional<std::string> matched;  // the stop string that occurred; `text` then ends right before it
  };
  // Adds text. After a match the caller stops pushing.
  Result push(std::string_view text);
  // Adds text in which no match is looked for (before min_tokens are reached).
  std::string push_unchecked(std::string_view text);
  // The end of the stream: what is held back.
  std::string finish();

 private:
  size_t held_back_bytes() const;

  std::vector<std::string> stops_;
  std::string pending_;
};

}  // namespace octet
