#include <algorithm>

#include "octet/text/unicode_ranges.h"

namespace octet::unicode {

bool contains(Ranges ranges, char32_t code_point) {
  if (code_point < 0x80) {  // among the first few ranges: faster in order
    for (const CodePointRange& range : ranges) {
      if (code_point <= range.last) return code_point >= range.first;
    }
    return false;
  }
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), code_point,
                                      [](char32_t c, const CodePointRange& range) { return c < range.first; });
  return after != ranges.begin() && code_point <= std::prev(after)->last;
}

}  // namespace octet::unicode
