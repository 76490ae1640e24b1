#include "octet/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "octet/base/json.h"
#include "octet/checkpoint/safetensors_index.h"
#include "octet/checkpoint/test_folder.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string file_with(const std::string& header, size_t data_bytes) {
  std::string file(8, '\0');
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> (8 * i));
  return file + header + std::string(data_bytes, '\1');
}

SafetensorsHeader parse(const std::string& file) {
  return parse_safetensors_header(std::as_bytes(std::span(file)), static_cast<int64_t>(file.size()), "f");
}

std::string error_of(const std::string& header, size_t data_bytes) {
  return error_text([&] { parse(file_with(header, data_bytes)); });
}

double value_at(ConstTensor tensor, size_t i) {
  const auto load = [&]<class T>(T value) {
    std::memcpy(&value, tensor.bytes + i * sizeof(T), sizeof(T));
    return value;
  };
  switch (tensor.dtype) {
    case DType::kF32:
      return static_cast<double>(load(float{}));
    case DType::kF16:
      return static_cast<double>(to_f32(load(F16{})));
    case DType::kI64:
      return static_cast<double>(load(int64_t{}));
    case DType::kI32:
      return load(int32_t{});
    case DType::kI8:
      return load(int8_t{});
    default:
      return load(uint8_t{});
  }
}

TEST(Safetensors, ReadsWhatThePythonPackageWrote) {
  const TestFolder folder;
  folder.write("model.safetensors", read_file(golden_checkpoint("small.safetensors"), 1 << 20));
  const SafetensorsFolder files(folder.path());
  const Json expected = read_json_file(golden_checkpoint("small.json"));
  ASSERT_EQ(files.entries().size(), expected.size());
  for (const auto& [name, listing] : expected.items()) {
    SCOPED_TRACE(name);
    const ConstTensor tensor = files.tensor(name);
    ASSERT_EQ(static_cast<size_t>(tensor.rank()), listing["shape"].size());
    for (int i = 0; i < tensor.rank(); ++i)
      EXPECT_EQ(tensor.dim(i), listing["shape"][static_cast<size_t>(i)].get<int64_t>());
    ASSERT_EQ(static_cast<size_t>(tensor.num_elements()), listing["values"].size());
    for (size_t i = 0; i < listing["values"].size(); ++i)
      EXPECT_EQ(value_at(tensor, i), listing["values"][i].get<double>());
    files.drop_pages(name);
    EXPECT_EQ(files.file_of(name), folder / "model.safetensors");
  }
}

TEST(Safetensors, HeaderOfAValidFile) {
  const SafetensorsHeader header =
      parse(file_with(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"U8","shape":[2],"data_offsets":[8,10]},)"
                      R"("a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}   )",
                      10));
  ASSERT_EQ(header.entries.size(), 2u);
  EXPECT_EQ(header.entries[0].entry.name, "a");
  EXPECT_EQ(header.entries[0].entry.shape, (Shape{2, 2}));
  EXPECT_EQ(header.entries[1].begin, 8);
  EXPECT_EQ(header.metadata.at("format"), "pt");
  EXPECT_TRUE(parse(file_with("{}", 0)).entries.empty());
}

TEST(Safetensors, RefusesFilesThatAreNoneOrTruncated) {
  EXPECT_THAT(error_text([] { parse("short"); }), HasSubstr("too short"));
  EXPECT_THAT(error_text([] { parse(std::string(7, 'x') + "\x7f"); }), HasSubstr("at most 67108864"));
  EXPECT_THAT(error_text([] { parse(std::string("\x64\0\0\0\0\0\0\0{}", 10)); }), HasSubstr("truncated"));
  EXPECT_THAT(error_of(" {}", 0), HasSubstr("does not start with '{'"));
  EXPECT_THAT(error_of("", 0), HasSubstr("does not start with '{'"));
  EXPECT_THAT(error_of("{\"a\":", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("{}x", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("{\"\xff\":1}", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 3), HasSubstr("only 3 bytes"));
}

TEST(Safetensors, RefusesHolesOverlapsAndRemainders) {
  const auto two = [](int b0, int e0, int b1, int e1) {
    return fmt::format(
        R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},"b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
        e0 - b0, b0, e0, e1 - b1, b1, e1);
  };
  EXPECT_THAT(error_of(two(0, 4, 4, 8), 8), "no error");
  EXPECT_THAT(error_of(two(0, 4, 5, 8), 8), HasSubstr("without holes"));
  EXPECT_THAT(error_of(two(0, 4, 3, 8), 8), HasSubstr("without overlaps"));
  EXPECT_THAT(error_of(two(0, 8, 0, 8), 8), HasSubstr("without overlaps"));
  EXPECT_THAT(error_of(two(1, 4, 4, 8), 8), HasSubstr("without holes"));
  EXPECT_THAT(error_of(two(0, 4, 4, 8), 9), HasSubstr("cover 8 bytes, the file holds 9"));
}

TEST(Safetensors, RefusesShapesThatDoNotFit) {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return error_of(fmt::format(R"({{"a":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", dtype, shape, offsets), 8);
  };
  EXPECT_EQ(one("F32", "[2]", "[0,8]"), "no error");
  EXPECT_THAT(one("F32", "[3]", "[0,8]"), HasSubstr("a: F32 [3] needs 12 bytes"));
  EXPECT_THAT(one("F32", "[4294967296,4294967296]", "[0,8]"), HasSubstr("overflows"));
  EXPECT_THAT(one("F32", "[0,4294967296,4294967296]", "[0,8]"), HasSubstr("overflows"));
  EXPECT_THAT(one("F32", "[18446744073709551615]", "[0,8]"), HasSubstr("too large"));
  EXPECT_THAT(one("F32", "[-2]", "[0,8]"), HasSubstr("a negative number"));
  EXPECT_THAT(one("F32", "[2.0]", "[0,8]"), HasSubstr("not an integer"));
  EXPECT_THAT(one("F32", "[[2]]", "[0,8]"), HasSubstr("an array"));
  EXPECT_THAT(one("F32", "2", "[0,8]"), HasSubstr("a number"));
  EXPECT_THAT(one("F32", "[1,1,1,1,2]", "[0,8]"), HasSubstr("5 dimensions"));
  EXPECT_THAT(one("F32", "[2]", "[8,0]"), HasSubstr("backwards"));
  EXPECT_THAT(one("F32", "[2]", "[0]"), HasSubstr("1 numbers"));
  EXPECT_THAT(one("F64", "[1]", "[0,8]"), HasSubstr("dtype F64 of tensor a is not supported"));
  EXPECT_THAT(one("F4", "[8]", "[0,8]"), HasSubstr("dtype F4 of tensor a"));
}

TEST(Safetensors, RefusesHeadersOfAnotherForm) {
  EXPECT_THAT(error_of(R"({"a":{"dtype":"U8","shape":[0]}})", 0), HasSubstr("a: data_offsets is missing"));
  EXPECT_THAT(error_of(R"({"a":[]})", 0), HasSubstr("an array"));
  EXPECT_THAT(error_of(R"({"a":1})", 0), HasSubstr("a number"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":null}})", 0), HasSubstr("null"));
  EXPECT_THAT(error_of(R"({"__metadata__":{"x":1}})", 0), HasSubstr("a number"));
  EXPECT_THAT(error_of(R"({"__metadata__":{"x":"1","x":"2"}})", 0), HasSubstr("duplicate key \"x\""));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"U8","dtype":"I8"}})", 0), HasSubstr("duplicate key \"dtype\""));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}})", 0),
              HasSubstr("duplicate key \"a\""));
  EXPECT_THAT(error_of("{\"" + std::string(2000, 'n') + "\":{}}", 0), HasSubstr("name has 2000 bytes"));
  std::string bomb = "{";
  for (int i = 0; i < 100000; ++i) bomb += "\"a\":{";
  EXPECT_THAT(error_of(bomb, 0), HasSubstr("an object"));
  EXPECT_THAT(error_of("{\"a\":{\"shape\":" + std::string(100000, '['), 0), HasSubstr("an array"));
}

std::string one_tensor(const std::string& name) {
  return file_with(fmt::format(R"({{"{}":{{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}}})", name), 2);
}

TEST(SafetensorsFolder, Shards) {
  const TestFolder folder;
  folder.write("model.safetensors.index.json",
               R"({"metadata":{"total_size":4},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}})");
  EXPECT_THAT(error_text([&] { SafetensorsFolder{folder.path()}; }),
              HasSubstr("2 of 2 shards are missing: m-1.safetensors, m-2.safetensors"));
  folder.write("m-1.safetensors", one_tensor("a"));
  folder.write("m-2.safetensors", one_tensor("b"));
  folder.write("consolidated.safetensors", "not read");
  const SafetensorsFolder files(folder.path());
  EXPECT_EQ(files.entries().size(), 2u);
  EXPECT_EQ(files.file_of("b"), folder / "m-2.safetensors");
  EXPECT_EQ(files.num_bytes(), 4);
  EXPECT_EQ(files.find("c"), nullptr);
  EXPECT_THAT(error_text([&] { files.tensor("c"); }), HasSubstr("no tensor c"));
  folder.write("m-2.safetensors", one_tensor("a"));
  EXPECT_THAT(error_text([&] { SafetensorsFolder{folder.path()}; }), HasSubstr("a is in"));
  folder.write("m-2.safetensors", one_tensor("c"));
  EXPECT_THAT(error_text([&] { SafetensorsFolder{folder.path()}; }), HasSubstr("b should be in m-2.safetensors"));
}

TEST(SafetensorsFolder, ChoosesTheModelsFiles) {
  const TestFolder folder;
  EXPECT_THAT(error_text([&] { SafetensorsFolder{folder / "absent"}; }), HasSubstr("not a folder"));
  EXPECT_THAT(error_text([&] { SafetensorsFolder{folder.path()}; }), HasSubstr("no model.safetensors"));
  folder.write("pytorch_model.bin", "x");
  EXPECT_THAT(error_text([&] { SafetensorsFolder{folder.path()}; }), HasSubstr("pytorch_model.bin may be a pickle"));
  folder.write("consolidated.00.safetensors", "x");
  EXPECT_THAT(error_text([&] { SafetensorsFolder{folder.path()}; }), HasSubstr("may be a pickle"));
  folder.write("other.safetensors", one_tensor("a"));
  EXPECT_NE(SafetensorsFolder(folder.path()).find("a"), nullptr);
  folder.write("second.safetensors", one_tensor("b"));
  EXPECT_THAT(error_text([&] { SafetensorsFolder{folder.path()}; }),
              HasSubstr("2 *.safetensors files (other.safetensors, second.safetensors)"));
}

TEST(SafetensorsIndex, ChecksNames) {
  const auto error = [](const std::string& text) { return error_text([&] { parse_safetensors_index(text, "i"); }); };
  EXPECT_THAT(
      parse_safetensors_index(
          R"({"metadata":{"x":[1,{"y":2.5}]},"weight_map":{"b":"2.safetensors","a":"1.safetensors","c":"1.safetensors"}})",
          "i")
          .shards(),
      ElementsAre("1.safetensors", "2.safetensors"));
  for (const char* name : {"../x.safetensors", "/x.safetensors", "a/b.safetensors", "x.bin", "", ".safetensors",
                           "a\\\\b.safetensors", "a\\u0000.safetensors"}) {
    EXPECT_THAT(error(fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", name)), HasSubstr("not the plain name")) << name;
  }
  EXPECT_THAT(error("{}"), HasSubstr("weight_map is missing"));
  EXPECT_THAT(error("[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(error("7"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(error(R"({"weight_map":[]})"), HasSubstr("weight_map is missing"));
  EXPECT_THAT(error(R"({"weight_map":{"a":1}})"), HasSubstr("a: expected the name"));
  EXPECT_THAT(error(R"({"weight_map":{"a":"x.safetensors","a":"x.safetensors"}})"), HasSubstr("duplicate key \"a\""));
  EXPECT_THAT(error("{\"x\":" + std::string(100000, '[')), HasSubstr("nested deeper"));
}

}  // namespace
}  // namespace octet
