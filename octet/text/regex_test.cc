#include "octet/text/regex.h"

#include <gtest/gtest.h>

#include "octet/base/error.h"
#include "octet/text/unicode_form.h"
#include "octet/text/unicode_ranges.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  std::vector<std::string> out;
  for (const TextRange& range : Regex(pattern, "test").find_all(text))
    out.emplace_back(text.substr(range.begin, range.end - range.begin));
  return out;
}

TEST(Regex, ClassesAreThoseOfOniguruma) {
  EXPECT_EQ(matches(R"(\s)", "a\u180Eb\u00A0c"), (std::vector<std::string>{"\u00A0"}));  // PCRE2 10.42 takes U+180E
  EXPECT_EQ(matches(R"(\p{L}+)", "x\U0001E5D0\U00031350 1"),
            (std::vector<std::string>{"x\U0001E5D0\U00031350"}));  // newer letters
  EXPECT_EQ(matches(R"([^\s\p{L}\p{N}]+)", "a!? b"), (std::vector<std::string>{"!?"}));
  EXPECT_EQ(matches(R"((?i:'s))", "'S '\u017F"), (std::vector<std::string>{"'S", "'\u017F"}));
  EXPECT_EQ(matches(R"(\P{L}+)", "ab12c"), (std::vector<std::string>{"12"}));
  EXPECT_EQ(matches(R"([^\S\n]+)", "a \t\n b"), (std::vector<std::string>{" \t", " "}));
}

TEST(Regex, EmptyMatchesAdvance) { EXPECT_EQ(matches("x*", "axé").size(), 3u); }

TEST(Regex, WhatTheLibrariesReadDifferentlyIsRefused) {
  for (const char* pattern : {R"(\h)", R"([a&&b])", R"([[:alpha:]])", R"(a{1,3}+)", R"((?m:.))", R"(\p{Han})",
                              R"((*UTF))", R"(a{,3})", "[", "\\"}) {
    EXPECT_THROW(Regex(pattern, "test"), Error) << pattern;
  }
}

TEST(Regex, RunawayPatternsEnd) {
  const Regex regex("(x+x+)+[yz]", "test");
  EXPECT_THROW(regex.find_all(std::string(100, 'x')), Error);
}

TEST(UnicodeRanges, CategoriesCoverEveryCharacterOnce) {
  size_t total = 0;
  for (const unicode::NamedRanges& category : unicode::categories()) {
    for (const auto& range : category.ranges) total += range.last - range.first + 1;
  }
  EXPECT_EQ(total, 0x110000u - 0x800u);
}

TEST(UnicodeForm, NfcComposesAcrossMarksAndJamos) {
  const auto nfc = [](std::string_view text) {
    std::string out;
    append_normal_form(out, text, UnicodeForm::kNfc);
    return out;
  };
  EXPECT_EQ(nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(nfc("\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(nfc("a\u0301\u0323"), "\u1EA1\u0301");
  EXPECT_EQ(normalization_boundary("e\u0301\u0323x", 0), 5u);
}

TEST(Utf8, ReplacesMaximalInvalidPieces) {
  EXPECT_EQ(utf8::repair_lossy("\xE2\x96\x81ok"), "\xE2\x96\x81ok");
  EXPECT_EQ(utf8::repair_lossy("\xE2\x96x\xF4\x90\x80"), "\uFFFDx\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(utf8::valid_prefix("abcdefgh\xC3"), 8u);
}

}  // namespace
}  // namespace octet
