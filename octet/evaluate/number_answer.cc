#include "octet/evaluate/number_answer.h"

#include <algorithm>

namespace octet {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_number_part(char c) { return is_digit(c) || c == '.' || c == ','; }

// The end of what `pattern` takes from `begin` on.
template <class Pattern>
size_t end_of(std::string_view text, size_t begin, Pattern&& pattern) {
  while (begin < text.size() && pattern(text[begin])) ++begin;
  return begin;
}

std::string normalised(std::string_view text) {
  std::string out;
  std::copy_if(text.begin(), text.end(), std::back_inserter(out), [](char c) { return c != ',' && c != '$'; });
  if (const size_t mark = out.rfind("#### "); mark != std::string::npos) out.erase(0, mark + 5);
  // Python's $ is also before a newline that ends the text.
  if (out.ends_with(".\n")) {
    out.erase(out.size() - 2, 1);
  } else if (out.ends_with('.')) {
    out.pop_back();
  }
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

}  // namespace

std::string strict_answer(std::string_view text) {
  constexpr std::string_view kMark = "#### ";
  for (size_t at = 0; (at = text.find(kMark, at)) != std::string_view::npos; ++at) {
    const size_t begin = at + kMark.size();
    const size_t number = begin < text.size() && text[begin] == '-' ? begin + 1 : begin;
    const size_t end = end_of(text, number, is_number_part);
    if (end > number) return std::string(text.substr(begin, end - begin));
  }
  return std::string(kNoAnswer);
}

std::string flexible_answer(std::string_view text) {
  std::string last(kNoAnswer);
  for (size_t at = 0; at < text.size();) {
    const size_t number = text[at] == '-' ? at + 1 : at;
    size_t end = end_of(text, number, [](char c) { return c == '$' || is_number_part(c); });
    if (end < number + 2) end = end_of(text, number, is_digit);
    if (end == number) {
      ++at;
      continue;
    }
    last = text.substr(at, end - at);
    at = end;
  }
  return last;
}

bool same_answer(std::string_view found, std::string_view expected) {
  return normalised(found) == normalised(expected);
}

}  // namespace octet
