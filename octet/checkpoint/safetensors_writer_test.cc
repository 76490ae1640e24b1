#include "octet/checkpoint/safetensors_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "octet/checkpoint/output_folder.h"
#include "octet/checkpoint/safetensors.h"
#include "octet/checkpoint/test_folder.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

constexpr float kValues[6] = {1, 2, 3, 4, 5, 6};
const auto kBytes = std::as_bytes(std::span(kValues));

std::vector<TensorEntry> three_tensors() {
  return {{.name = "quote\"\\\n", .dtype = DType::kF32, .shape = {2, 3}},
          {.name = "none", .dtype = DType::kI8, .shape = {0}},
          {.name = "last", .dtype = DType::kF32, .shape = {1}}};
}

void expect_three_tensors(const std::string& folder) {
  const SafetensorsFolder files(folder);
  EXPECT_EQ(files.entries().size(), 3u);
  EXPECT_EQ(std::memcmp(files.tensor("quote\"\\\n").bytes, kValues, sizeof(kValues)), 0);
  EXPECT_EQ(std::memcmp(files.tensor("last").bytes, kValues, 4), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(files.tensor("quote\"\\\n").bytes) % 8, 0u);
}

TEST(SafetensorsWriter, WritesWhatTheReaderReadsInAnyOrder) {
  const TestFolder folder;
  SafetensorsWriter writer(folder.path(), three_tensors());
  writer.write("last", kBytes.first(4));
  writer.write("quote\"\\\n", kBytes.subspan(10), 10);
  EXPECT_THROW(writer.finish(), Error);  // ten bytes are missing
  EXPECT_THROW(writer.write("quote\"\\\n", kBytes.first(15)), Error);
  EXPECT_THROW(writer.write("last", kBytes.first(1), 4), Error);
  EXPECT_THROW(writer.write("other", {}), Error);
  writer.write("quote\"\\\n", kBytes.first(10));
  writer.finish();
  EXPECT_FALSE(std::filesystem::exists(folder / "model.safetensors.index.json"));
  EXPECT_EQ(static_cast<int64_t>(std::filesystem::file_size(folder / "model.safetensors")), writer.num_bytes());
  EXPECT_EQ(safetensors_bytes(three_tensors()), writer.num_bytes());
  expect_three_tensors(folder.path());
}

TEST(SafetensorsWriter, ShardsOfBoundedSize) {
  const TestFolder folder;
  const SafetensorsLayout layout{.metadata = {}, .max_shard_bytes = 24};
  {
    SafetensorsWriter writer(folder.path(), three_tensors(), layout);
    writer.write("quote\"\\\n", kBytes);
    writer.write("last", kBytes.first(4));
    writer.finish();
  }
  EXPECT_TRUE(std::filesystem::exists(folder / "model-00002-of-00002.safetensors"));
  EXPECT_EQ(SafetensorsFolder(folder.path()).file_of("none"), folder / "model-00001-of-00002.safetensors");
  EXPECT_THAT(read_file(folder / "model.safetensors.index.json", 10000), HasSubstr("\"total_size\": 28"));
  expect_three_tensors(folder.path());
}

TEST(SafetensorsWriter, Continues) {
  const TestFolder folder;
  {
    SafetensorsWriter writer(folder.path(), three_tensors());
    writer.write("last", kBytes.first(4));
  }
  {
    SafetensorsWriter writer(folder.path(), three_tensors(), {}, SafetensorsWriter::Begin::kContinue);
    writer.keep("last");
    writer.write("quote\"\\\n", kBytes);
    writer.finish();
  }
  expect_three_tensors(folder.path());
  const std::vector<TensorEntry> others = {{.name = "quote\"\\\n", .dtype = DType::kF32, .shape = {3, 2}},
                                           {.name = "none", .dtype = DType::kI8, .shape = {0}},
                                           {.name = "last", .dtype = DType::kF32, .shape = {1}}};
  EXPECT_THAT(error_text([&] {
                SafetensorsWriter{folder.path(), others, {}, SafetensorsWriter::Begin::kContinue};
              }),
              HasSubstr("model.safetensors: is not the file that was begun"));
}

TEST(SafetensorsWriter, SaysThatTheDiskIsFull) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const TestFolder folder;
  std::filesystem::create_symlink("/dev/full", folder / "model.safetensors");
  const auto write = [&] {
    SafetensorsWriter writer(folder.path(), three_tensors());
    writer.write("quote\"\\\n", kBytes);
  };
  EXPECT_THAT(error_text(write), HasSubstr("model.safetensors: cannot write"));
}

TEST(OutputFolder, AppearsWhole) {
  const TestFolder folder;
  const std::string target = folder / "out";
  {
    OutputFolder out(target + "/", {});
    write_file(out.file("x"), "1");
    EXPECT_FALSE(std::filesystem::exists(target));
  }
  EXPECT_FALSE(std::filesystem::exists(target + ".partial"));
  {
    OutputFolder out(target, {});
    write_file(out.file("x"), "2");
    out.finish();
  }
  EXPECT_EQ(read_file(target + "/x", 10), "2");
  EXPECT_THAT(error_text([&] { OutputFolder(target, {}); }), HasSubstr("exists and is not an empty folder"));
  OutputFolder(target, {.may_replace = [](const auto&) { return true; }}).finish();
  EXPECT_TRUE(std::filesystem::is_empty(target));
}

TEST(OutputFolder, IsContinuedOnlyWhenAsked) {
  const TestFolder folder;
  const OutputRules rules{.unfinished = OutputRules::Unfinished::kKeep};
  {
    OutputFolder out(folder / "out", rules);
    EXPECT_FALSE(out.resumed());
    write_file(out.file("x"), "1");
  }
  EXPECT_THAT(error_text([&] { OutputFolder(folder / "out", rules); }), HasSubstr("continue it with --resume"));
  OutputRules resume = rules;
  resume.resume = true;
  EXPECT_TRUE(OutputFolder(folder / "out", resume).resumed());
}

}  // namespace
}  // namespace octet
