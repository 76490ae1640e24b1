#include "octet/checkpoint/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "octet/checkpoint/gguf_metadata.h"
#include "octet/checkpoint/gguf_quants.h"
#include "octet/checkpoint/safetensors.h"
#include "octet/checkpoint/test_folder.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

// Builds files byte by byte, right or wrong.
class GgufBytes {
 public:
  GgufBytes& u8(uint8_t value) { return raw(&value, 1); }
  GgufBytes& u32(uint32_t value) { return raw(&value, 4); }
  GgufBytes& u64(uint64_t value) { return raw(&value, 8); }
  GgufBytes& f32(float value) { return raw(&value, 4); }
  GgufBytes& string(const std::string& text) { return u64(text.size()).raw(text.data(), text.size()); }
  GgufBytes& header(uint64_t tensors, uint64_t pairs, uint32_t version = 3) {
    return raw("GGUF", 4).u32(version).u64(tensors).u64(pairs);
  }
  GgufBytes& tensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type, uint64_t offset) {
    string(name).u32(static_cast<uint32_t>(dims.size()));
    for (uint64_t dim : dims) u64(dim);
    return u32(type).u64(offset);
  }
  GgufBytes& data(size_t count) {
    bytes_.resize((bytes_.size() + 31) / 32 * 32);
    bytes_.resize(bytes_.size() + count, '\1');
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  GgufBytes& raw(const void* from, size_t count) {
    bytes_.append(static_cast<const char*>(from), count);
    return *this;
  }
  std::string bytes_;
};

GgufFile parse(const std::string& bytes) { return parse_gguf(std::as_bytes(std::span(bytes)), "f"); }
std::string error_of(const GgufBytes& file) {
  return error_text([&] { parse(file.bytes()); });
}

constexpr uint32_t kF32 = 0, kQ8_0 = 8, kUint32 = 4, kFloat32 = 6, kBool = 7, kString = 8, kArray = 9;

TEST(Gguf, ReadsMetadataAndTensors) {
  GgufBytes file;
  file.header(2, 5)
      .string("n")
      .u32(kUint32)
      .u32(7)
      .string("x")
      .u32(kFloat32)
      .f32(0.5f)
      .string("b")
      .u32(kBool)
      .u8(1)
      .string("s")
      .u32(kString)
      .string("text");
  file.string("a").u32(kArray).u32(kString).u64(2).string("one").string("");
  file.tensor("w", {32, 2}, kQ8_0, 0).tensor("v", {3}, kF32, 96).data(68 + 28 + 12);
  const GgufFile parsed = parse(file.bytes());
  const GgufMetadata metadata(parsed, "f");
  EXPECT_EQ(metadata.find_int("n"), 7);
  EXPECT_EQ(metadata.find_number("x"), 0.5);
  EXPECT_EQ(metadata.find_bool("b"), true);
  EXPECT_EQ(metadata.get_string("s"), "text");
  EXPECT_EQ(metadata.get_strings("a"), (std::vector<std::string>{"one", ""}));
  EXPECT_EQ(metadata.find_int("absent"), std::nullopt);
  EXPECT_THAT(error_text([&] { (void)metadata.find_int("s"); }), HasSubstr("s: expected an integer"));
  EXPECT_THAT(error_text([&] { (void)metadata.get_int_in("n", 8, 9); }),
              HasSubstr("n: expected an integer from 8 to 9, found 7"));
  EXPECT_THAT(error_text([&] { (void)metadata.get_strings("gone"); }), HasSubstr("gone is missing"));
  ASSERT_EQ(parsed.tensors.size(), 2u);
  EXPECT_EQ(parsed.tensors[0].shape, (Shape{2, 32}));
  EXPECT_EQ(parsed.tensors[0].bytes.size(), 68u);
  EXPECT_EQ(parsed.tensors[1].bytes.size(), 12u);
}

TEST(Gguf, RefusesOtherFormats) {
  EXPECT_THAT(error_text([] { parse(""); }), HasSubstr("magic: 4 bytes are needed"));
  EXPECT_THAT(error_text([] { parse("GGML00000000"); }), HasSubstr("does not start with \"GGUF\""));
  EXPECT_THAT(error_of(GgufBytes().header(0, 0, 1)), HasSubstr("GGUF version 1; octet reads versions 2 and 3"));
  EXPECT_THAT(error_of(GgufBytes().header(0, 0, 4)), HasSubstr("GGUF version 4"));
  EXPECT_THAT(error_of(GgufBytes().header(0, 0, 0x03000000)), HasSubstr("big-endian"));
  EXPECT_EQ(error_of(GgufBytes().header(0, 0, 2)), "no error");
}

TEST(Gguf, RefusesCountsAndLengthsBeyondTheFile) {
  EXPECT_THAT(error_of(GgufBytes().header(uint64_t{1} << 60, 0)), HasSubstr("cannot fit"));
  EXPECT_THAT(error_of(GgufBytes().header(0, ~uint64_t{0})), HasSubstr("cannot fit"));
  EXPECT_THAT(error_of(GgufBytes().header(0, 1).u64(100).data(32)), HasSubstr("metadata key: 100 bytes are needed"));
  EXPECT_THAT(error_of(GgufBytes().header(0, 1).u64(~uint64_t{0}).data(32)),
              HasSubstr("a string of 18446744073709551615 bytes"));
  EXPECT_THAT(error_of(GgufBytes().header(0, 1).string("k").u32(kString).u64(9999).data(8)),
              HasSubstr("k: 9999 bytes are needed"));
  EXPECT_THAT(error_of(GgufBytes().header(0, 1).string("k").u32(kArray).u32(kUint32).u64(uint64_t{1} << 62).data(8)),
              HasSubstr("k: an array of 4611686018427387904"));
  EXPECT_THAT(
      error_of(GgufBytes().header(0, 1).string("k").u32(kArray).u32(kString).u64(3).string("a").u64(0x100).data(8)),
      HasSubstr("k: 256 bytes are needed"));
}

TEST(Gguf, RefusesDamagedMetadata) {
  EXPECT_THAT(error_of(GgufBytes().header(0, 1).string("k").u32(13).u64(0)), HasSubstr("k: unknown value type 13"));
  EXPECT_THAT(error_of(GgufBytes().header(0, 1).string("k").u32(kArray).u32(kArray).u64(1).u32(kArray).u64(1)),
              HasSubstr("arrays of arrays"));
  EXPECT_THAT(error_of(GgufBytes().header(0, 2).string("k").u32(kUint32).u32(1).string("k").u32(kUint32).u32(1)),
              HasSubstr("duplicate metadata key \"k\""));
  const auto aligned = [](uint32_t alignment) {
    return error_of(GgufBytes().header(0, 1).string("general.alignment").u32(kUint32).u32(alignment));
  };
  EXPECT_EQ(aligned(64), "no error");
  for (uint32_t alignment : {0u, 3u, 48u, 131072u})
    EXPECT_THAT(aligned(alignment), HasSubstr("not a power of two")) << alignment;
}

TEST(Gguf, RefusesDamagedTensors) {
  const auto one = [](std::vector<uint64_t> dims, uint32_t type, uint64_t offset, size_t bytes) {
    return error_of(GgufBytes().header(1, 0).tensor("w", std::move(dims), type, offset).data(bytes));
  };
  EXPECT_EQ(one({8}, kF32, 0, 32), "no error");
  EXPECT_THAT(one({}, kF32, 0, 64), HasSubstr("w: 0 dimensions"));
  EXPECT_THAT(one({1, 1, 1, 1, 1}, kF32, 0, 64), HasSubstr("w: 5 dimensions"));
  EXPECT_THAT(one({8, 0}, kF32, 0, 64), HasSubstr("w: dimension 1 is 0"));
  EXPECT_THAT(one({uint64_t{1} << 33, uint64_t{1} << 33}, kF32, 0, 64), HasSubstr("overflows"));
  EXPECT_THAT(one({uint64_t{1} << 62}, kF32, 0, 64), HasSubstr("overflows"));
  EXPECT_THAT(one({~uint64_t{0}}, kF32, 0, 64), HasSubstr("does not fit 63 bits"));
  EXPECT_THAT(one({33}, kQ8_0, 0, 64), HasSubstr("rows of 33 are not whole Q8_0 blocks of 32"));
  EXPECT_THAT(one({8}, kF32, 8, 64), HasSubstr("offset 8 is not a multiple of 32"));
  EXPECT_THAT(one({8}, kF32, 32, 32), HasSubstr("outside the 32 bytes of data"));
  EXPECT_THAT(one({8}, kF32, ~uint64_t{31}, 32), HasSubstr("outside"));
  EXPECT_THAT(one({8}, 13, 0, 32), HasSubstr("w: encoding Q5_K is not supported; octet reads F32, F16, BF16"));
  EXPECT_THAT(one({8}, 99, 0, 32), HasSubstr("encoding type 99"));
  EXPECT_THAT(error_of(GgufBytes().header(2, 0).tensor("w", {16}, kF32, 0).tensor("v", {8}, kF32, 32).data(64)),
              HasSubstr("w and v overlap"));
  EXPECT_THAT(error_of(GgufBytes().header(2, 0).tensor("w", {8}, kF32, 0).tensor("w", {8}, kF32, 32).data(64)),
              HasSubstr("duplicate tensor w"));
}

TEST(Gguf, EveryTruncationOfARealFileIsAnError) {
  const std::string whole = read_file(std::string(OCTET_SOURCE_DIR) + "/tests/fuzz/gguf_fuzz/bpe.gguf", 1 << 20);
  EXPECT_EQ(error_text([&] { parse(whole); }), "no error");
  for (size_t size = 0; size < whole.size(); size += size < 2048 ? 1 : 97) {
    EXPECT_NE(error_text([&] { parse(whole.substr(0, size)); }), "no error") << size;
  }
}

// Bit for bit what the gguf package makes of random blocks (scripts/record_checkpoints.py).
TEST(Gguf, DequantisesAsGgmlDoes) {
  const TestFolder folder;
  folder.write("model.safetensors", read_file(golden_checkpoint("quants.safetensors"), 1 << 20));
  const SafetensorsFolder goldens(folder.path());
  for (GgufType type : {GgufType::kF16, GgufType::kBF16, GgufType::kQ8_0, GgufType::kQ4_0, GgufType::kQ4_1,
                        GgufType::kQ4_K, GgufType::kQ6_K}) {
    const std::string name = gguf_type_name(static_cast<uint32_t>(type));
    SCOPED_TRACE(name);
    const ConstTensor blocks = goldens.tensor(name + ".blocks");
    const ConstTensor expected = goldens.tensor(name + ".values");
    const GgufTensor tensor{.name = name,
                            .type = type,
                            .shape = {expected.num_elements()},
                            .bytes = {blocks.bytes, static_cast<size_t>(blocks.num_bytes())}};
    std::vector<float> values(static_cast<size_t>(expected.num_elements()));
    dequantize_gguf(tensor, values);
    ASSERT_GT(values.size(), 60u);
    for (size_t i = 0; i < values.size(); ++i) {
      float value = 0;
      std::memcpy(&value, expected.bytes + i * sizeof(float), sizeof(float));
      EXPECT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(value))
          << i << ": " << values[i] << " and " << value;
    }
  }
}

}  // namespace
}  // namespace octet
