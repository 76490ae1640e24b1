#include "octet/quantizer/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "octet/checkpoint/test_folder.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

TEST(Journal, RemembersWholeLines) {
  const TestFolder folder;
  const Json task = {{"scheme", "fp8"}, {"files", {{"a", 1}}}};
  const std::string path = folder / "journal";
  {
    Journal journal(path, task, false);
    const Journal::Entry entries[] = {{"one", Json{0.1}}, {"two", Json::array()}};
    journal.record(entries);
  }
  const std::string text = read_file(path, 1000);
  // Cut anywhere, it knows what its whole lines say and can be written on.
  for (size_t size = 0; size <= text.size(); ++size) {
    folder.write("journal", text.substr(0, size));
    const std::string kept = text.substr(0, size);
    const auto has = [&](const char* unit) {
      const size_t at = kept.find(fmt::format("\"{}\"", unit));
      return at != std::string::npos && kept.find('\n', at) != std::string::npos;
    };
    {
      Journal journal(path, task, true);
      EXPECT_EQ(journal.find("one") != nullptr, has("one")) << size;
      EXPECT_EQ(journal.find("two") != nullptr, has("two")) << size;
      const Journal::Entry three[] = {{"three", Json{3}}};
      journal.record(three);
    }
    Journal journal(path, task, true);
    ASSERT_NE(journal.find("three"), nullptr) << size;
    EXPECT_EQ(*journal.find("three"), Json{3});
    if (has("one")) {
      EXPECT_EQ(journal.find("one")->at(0).get<double>(), 0.1);
    }
  }
  EXPECT_THAT(error_text([&] {
                Journal(path, {{"scheme", "int8"}, {"files", {{"a", 1}}}}, true);
              }),
              HasSubstr("had scheme \"fp8\", this one \"int8\""));
}

}  // namespace
}  // namespace octet
