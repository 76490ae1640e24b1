// What Python's str methods do, shared by methods and filters. Origins are kept piece by piece.
#pragma once

#include <optional>
#include <vector>

#include "octet/text/jinja/runtime.h"

namespace octet::jinja {

enum class Side { kLeft, kRight, kBoth };

Text strip(Runtime& runtime, const Text& text, Side side,
           const std::optional<Text>& characters);  // white space if absent
Text replace(Runtime& runtime, const Text& text, const Text& from, const Text& to, std::optional<int64_t> max_count);
// Absent separator: runs of white space. max_splits < 0: no bound.
std::vector<Text> split(Runtime& runtime, const Text& text, const std::optional<Text>& separator, int64_t max_splits);
std::vector<Text> split_right(Runtime& runtime, const Text& text, const std::optional<Text>& separator,
                              int64_t max_splits);
enum class LineEnds { kDrop, kKeep };
std::vector<Text> split_lines(Runtime& runtime, const Text& text, LineEnds ends);
Text join(Runtime& runtime, const Text& separator, const std::vector<Text>& parts);
// Pads with `fill` to `width` code points; kLeft puts the padding on the left.
Text pad(Runtime& runtime, const Text& text, int64_t width, Side side, const Text& fill);
int64_t count_words(const Text& text);

}  // namespace octet::jinja
