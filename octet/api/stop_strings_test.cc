#include "octet/api/stop_strings.h"

#include <gtest/gtest.h>

#include <random>

namespace octet {
namespace {

TEST(StopStrings, FindsAMatchAcrossPieces) {
  StopStrings stops({"\nUser:", "END"});
  EXPECT_EQ(stops.push("Hello\nUs").text, "Hello");
  EXPECT_EQ(stops.push("e").text, "");
  const auto result = stops.push("r: x");
  EXPECT_EQ(result.text, "");
  EXPECT_EQ(result.matched, "\nUser:");
}

TEST(StopStrings, ReleasesAFalseStart) {
  StopStrings stops({"abcd"});
  EXPECT_EQ(stops.push("xab").text, "x");
  EXPECT_EQ(stops.push("abx").text, "ababx");
  EXPECT_EQ(stops.push("abc").text, "");
  EXPECT_EQ(stops.finish(), "abc");
}

TEST(StopStrings, EarliestMatchWins) {
  StopStrings stops({"cd", "bcde"});
  const auto result = stops.push("abcde");
  EXPECT_EQ(result.text, "a");
  EXPECT_EQ(result.matched, "bcde");
}

// However the text is cut, what comes out is everything before the first occurrence.
TEST(StopStrings, CutsDoNotMatter) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 30; ++i) text += static_cast<char>('a' + random() % 3);
    const std::vector<std::string> words = {"abca", "ccc"};
    const size_t expected = std::min(text.find(words[0]), text.find(words[1]));
    StopStrings stops(words);
    std::string out;
    bool matched = false;
    for (size_t at = 0; at < text.size() && !matched;) {
      const size_t n = 1 + random() % 4;
      const auto result = stops.push(text.substr(at, n));
      out += result.text;
      matched = result.matched.has_value();
      at += n;
    }
    if (!matched) out += stops.finish();
    EXPECT_EQ(matched, expected != std::string::npos) << text;
    EXPECT_EQ(out, text.substr(0, expected)) << text;
  }
}

}  // namespace
}  // namespace octet
