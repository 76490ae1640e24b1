// For tests: a scratch folder of its own that disappears, and the text of the error that a call throws.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "octet/base/error.h"
#include "octet/base/file.h"

namespace octet {

class TestFolder {
 public:
  TestFolder() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name = std::string("octet_") + test->test_suite_name() + "_" + test->name() + "_XXXXXX";
    std::replace(name.begin(), name.end(), '/', '_');
    std::string path = (std::filesystem::path(::testing::TempDir()) / name).string();
    if (::mkdtemp(path.data()) == nullptr) fail(ErrorCode::kIo, "{}: cannot be made", path);
    path_ = path;
  }
  ~TestFolder() { std::filesystem::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  std::string path() const { return path_.string(); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  void write(const std::string& name, std::string_view contents) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    write_file(*this / name, contents);
  }

 private:
  std::filesystem::path path_;
};

template <class Fn>
std::string error_text(Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    EXPECT_NE(error.code(), ErrorCode::kInternal) << error.what();
    return error.what();
  }
  return "no error";
}

inline std::string golden_checkpoint(const std::string& name) {
  return std::string(OCTET_SOURCE_DIR) + "/tests/golden/checkpoints/" + name;
}

}  // namespace octet
