// Dequantisation of GGUF blocks, bit for bit as ggml does it: F32 arithmetic in ggml's order, one rounding per
// operation. Products stand in statements of their own so that no compiler may fuse them with an addition. Block
// layouts: ggml-common.h and ggml-quants.c of llama.cpp.
#include "octet/checkpoint/gguf_quants.h"

#include <cstring>
#include <vector>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr int kSmallBlock = 32;
constexpr int kSuperBlock = 256;

template <class T>
T load(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

float load_f16(const uint8_t* bytes) { return to_f32(load<F16>(bytes)); }

void dequantize_f32(const uint8_t* block, float* out) { *out = load<float>(block); }
void dequantize_f16(const uint8_t* block, float* out) { *out = load_f16(block); }
void dequantize_bf16(const uint8_t* block, float* out) { *out = to_f32(load<BF16>(block)); }

// {f16 d, i8 q[32]}: d * q
void dequantize_q8_0(const uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (int i = 0; i < kSmallBlock; ++i) out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
}

// {f16 d, u4 q[32]}: d * (q - 8); low nibbles are the first half of the block
void dequantize_q4_0(const uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (int i = 0; i < kSmallBlock / 2; ++i) {
    out[i] = static_cast<float>((block[2 + i] & 15) - 8) * d;
    out[i + kSmallBlock / 2] = static_cast<float>((block[2 + i] >> 4) - 8) * d;
  }
}

// {f16 d, f16 m, u4 q[32]}: d * q + m
void dequantize_q4_1(const uint8_t* block, float* out) {
  const float d = load_f16(block);
  const float m = load_f16(block + 2);
  for (int i = 0; i < kSmallBlock / 2; ++i) {
    const float low = static_cast<float>(block[4 + i] & 15) * d;
    const float high = static_cast<float>(block[4 + i] >> 4) * d;
    out[i] = low + m;
    out[i + kSmallBlock / 2] = high + m;
  }
}

struct ScaleMin {
  uint8_t scale;
  uint8_t min;
};

// Eight 6-bit scales and eight 6-bit minima in 12 bytes: the first four in bytes 0-3 and 4-7; the low nibbles of the
// other four in bytes 8-11, their upper two bits on top of the first eight bytes.
ScaleMin unpack_scale_min(const uint8_t* packed, int j) {
  if (j < 4) return {static_cast<uint8_t>(packed[j] & 63), static_cast<uint8_t>(packed[j + 4] & 63)};
  return {static_cast<uint8_t>((packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4)),
          static_cast<uint8_t>((packed[j + 4] >> 4) | (packed[j] >> 6 << 4))};
}

// {f16 d, f16 dmin, u8 scales[12], u4 q[256]}: eight groups of 32, (d * scale) * q - (dmin * min)
void dequantize_q4_k(const uint8_t* block, float* out) {
  const float d = load_f16(block);
  const float dmin = load_f16(block + 2);
  const uint8_t* packed = block + 4;
  const uint8_t* q = block + 16;
  for (int group = 0; group < 8; ++group) {
    const ScaleMin part = unpack_scale_min(packed, group);
    const float scale = d * static_cast<float>(part.scale);
    const float min = dmin * static_cast<float>(part.min);
    const int shift = group % 2 * 4;  // pairs of groups share 32 bytes
    for (int i = 0; i < 32; ++i) {
      const float scaled = scale * static_cast<float>((q[group / 2 * 32 + i] >> shift) & 15);
      out[group * 32 + i] = scaled - min;
    }
  }
}

// {u4 low[256], u2 high[256], i8 scales[16], f16 d}: sixteen groups of 16, (d * scale) * (q - 32). Each half of the
// block keeps 128 weights: 64 bytes of low nibbles and 32 bytes of high pairs.
void dequantize_q6_k(const uint8_t* block, float* out) {
  const float d = load_f16(block + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = block + half * 64;
    const uint8_t* high = block + 128 + half * 32;
    const uint8_t* scales = block + 192 + half * 8;
    for (int i = 0; i < 128; ++i) {
      const int column = i % 32;
      const int quarter = i / 32;
      const int low_bits = (low[column + quarter % 2 * 32] >> (quarter / 2 * 4)) & 15;
      const int high_bits = (high[column] >> (quarter * 2)) & 3;
      const float scale = d * static_cast<float>(static_cast<int8_t>(scales[i / 16]));
      out[half * 128 + i] = scale * static_cast<float>((low_bits | high_bits << 4) - 32);
    }
  }
}

constexpr GgufQuant kQuants[] = {
    {GgufType::kF32, "F32", 1, 4, dequantize_f32},
    {GgufType::kF16, "F16", 1, 2, dequantize_f16},
    {GgufType::kBF16, "BF16", 1, 2, dequantize_bf16},
    {GgufType::kQ8_0, "Q8_0", kSmallBlock, 34, dequantize_q8_0},
    {GgufType::kQ4_0, "Q4_0", kSmallBlock, 18, dequantize_q4_0},
    {GgufType::kQ4_1, "Q4_1", kSmallBlock, 20, dequantize_q4_1},
    {GgufType::kQ4_K, "Q4_K", kSuperBlock, 144, dequantize_q4_k},
    {GgufType::kQ6_K, "Q6_K", kSuperBlock, 210, dequantize_q6_k},
};

// Encodings that exist and are not read, so that an error can name them.
struct KnownType {
  uint32_t type;
  std::string_view name;
};
constexpr KnownType kUnreadTypes[] = {
    {6, "Q5_0"},   {7, "Q5_1"},     {9, "Q8_1"},    {10, "Q2_K"},    {11, "Q3_K"},  {13, "Q5_K"},
    {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"},
    {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"}, {24, "I8"},      {25, "I16"},   {26, "I32"},
    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},  {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},
};

}  // namespace

const GgufQuant* find_gguf_quant(uint32_t type) {
  for (const GgufQuant& quant : kQuants) {
    if (static_cast<uint32_t>(quant.type) == type) return &quant;
  }
  return nullptr;
}

std::string gguf_type_name(uint32_t type) {
  if (const GgufQuant* quant = find_gguf_quant(type)) return std::string(quant->name);
  for (const KnownType& known : kUnreadTypes) {
    if (known.type == type) return std::string(known.name);
  }
  return fmt::format("type {}", type);
}

std::string supported_gguf_types() {
  std::string names;
  for (const GgufQuant& quant : kQuants) names += fmt::format("{}{}", names.empty() ? "" : ", ", quant.name);
  return names;
}

void dequantize_gguf(const GgufTensor& tensor, std::span<float> out) {
  const GgufQuant* quant = find_gguf_quant(static_cast<uint32_t>(tensor.type));
  OCTET_CHECK(quant != nullptr);
  const int64_t blocks = static_cast<int64_t>(out.size()) / quant->block_elements;
  OCTET_CHECK(tensor.shape.num_elements() == static_cast<int64_t>(out.size()) &&
              blocks * quant->block_elements == static_cast<int64_t>(out.size()));
  OCTET_CHECK(static_cast<int64_t>(tensor.bytes.size()) == blocks * quant->block_bytes);
  const auto* block = reinterpret_cast<const uint8_t*>(tensor.bytes.data());
  for (int64_t i = 0; i < blocks; ++i)
    quant->dequantize_block(block + i * quant->block_bytes, out.data() + i * quant->block_elements);
}

}  // namespace octet
