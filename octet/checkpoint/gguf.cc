#include "octet/checkpoint/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "octet/base/error.h"
#include "octet/checkpoint/gguf_quants.h"

namespace octet {
namespace {

constexpr uint64_t kMaxStringBytes = uint64_t{16} << 20;
constexpr uint64_t kMaxAlignment = 64 << 10;
constexpr uint64_t kMinPairBytes = 8 + 4 + 1;            // an empty key, its type, a one-byte value
constexpr uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;  // an empty name, one dimension

enum class ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

// Walks over the bytes; every read is checked against what remains.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string_view path) : bytes_(bytes), path_(path) {}

  size_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }

  template <class T>
  T read(std::string_view what) {
    require(sizeof(T), what);
    T value;  // GGUF and every machine that octet runs on are little endian
    static_assert(std::endian::native == std::endian::little);
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  std::string read_string(std::string_view what) {
    const auto length = read<uint64_t>(what);
    if (length > kMaxStringBytes)
      fail(ErrorCode::kModel, "{}: {}: a string of {} bytes, at most {} are read", path_, what, length,
           kMaxStringBytes);
    require(length, what);
    std::string text(reinterpret_cast<const char*>(bytes_.data()) + position_, static_cast<size_t>(length));
    position_ += static_cast<size_t>(length);
    return text;
  }

  void require(uint64_t count, std::string_view what) const {
    if (count > remaining()) {
      fail(ErrorCode::kModel, "{}: {}: {} bytes are needed at byte {}, the file has {}; is it truncated?", path_, what,
           count, position_, bytes_.size());
    }
  }

  std::string_view path() const { return path_; }

 private:
  std::span<const std::byte> bytes_;
  std::string_view path_;
  size_t position_ = 0;
};

int64_t read_u64(Reader& reader, std::string_view what) {
  const auto value = reader.read<uint64_t>(what);
  if (value > uint64_t{INT64_MAX})
    fail(ErrorCode::kModel, "{}: {}: {} does not fit 63 bits", reader.path(), what, value);
  return static_cast<int64_t>(value);
}

bool is_integer(ValueType type) {
  return type != ValueType::kF32 && type != ValueType::kF64 && type != ValueType::kString && type != ValueType::kArray;
}

int64_t read_integer(Reader& reader, ValueType type, std::string_view what) {
  switch (type) {
    case ValueType::kU8:
      return reader.read<uint8_t>(what);
    case ValueType::kI8:
      return reader.read<int8_t>(what);
    case ValueType::kU16:
      return reader.read<uint16_t>(what);
    case ValueType::kI16:
      return reader.read<int16_t>(what);
    case ValueType::kU32:
      return reader.read<uint32_t>(what);
    case ValueType::kI32:
      return reader.read<int32_t>(what);
    case ValueType::kI64:
      return reader.read<int64_t>(what);
    case ValueType::kBool:
      return reader.read<uint8_t>(what) != 0;
    default:
      return read_u64(reader, what);
  }
}

double read_real(Reader& reader, ValueType type, std::string_view what) {
  return type == ValueType::kF32 ? static_cast<double>(reader.read<float>(what)) : reader.read<double>(what);
}

uint64_t min_bytes(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
      return 1;
    case ValueType::kU16:
    case ValueType::kI16:
      return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32:
      return 4;
    default:
      return 8;
  }
}

ValueType read_type(Reader& reader, std::string_view what) {
  const auto type = reader.read<uint32_t>(what);
  if (type > static_cast<uint32_t>(ValueType::kF64))
    fail(ErrorCode::kModel, "{}: {}: unknown value type {}", reader.path(), what, type);
  return static_cast<ValueType>(type);
}

GgufArray read_array(Reader& reader, std::string_view what) {
  const ValueType type = read_type(reader, what);
  if (type == ValueType::kArray)
    fail(ErrorCode::kUnsupported, "{}: {}: arrays of arrays are not supported", reader.path(), what);
  const auto count = reader.read<uint64_t>(what);
  if (count > reader.remaining() / min_bytes(type)) {
    fail(ErrorCode::kModel, "{}: {}: an array of {} values does not fit the {} bytes that remain", reader.path(), what,
         count, reader.remaining());
  }
  const auto size = static_cast<size_t>(count);
  if (type == ValueType::kString) {
    std::vector<std::string> values;
    for (size_t i = 0; i < size; ++i) values.push_back(reader.read_string(what));
    return values;
  }
  if (is_integer(type)) {
    std::vector<int64_t> values(size);
    for (int64_t& value : values) value = read_integer(reader, type, what);
    return values;
  }
  std::vector<double> values(size);
  for (double& value : values) value = read_real(reader, type, what);
  return values;
}

GgufValue read_value(Reader& reader, std::string_view what) {
  const ValueType type = read_type(reader, what);
  switch (type) {
    case ValueType::kString:
      return reader.read_string(what);
    case ValueType::kArray:
      return read_array(reader, what);
    case ValueType::kBool:
      return read_integer(reader, type, what) != 0;
    case ValueType::kF32:
    case ValueType::kF64:
      return read_real(reader, type, what);
    default:
      return read_integer(reader, type, what);
  }
}

struct TensorPlace {
  GgufTensor tensor;
  uint64_t offset = 0;
  uint64_t num_bytes = 0;
};

TensorPlace read_tensor(Reader& reader) {
  TensorPlace place;
  GgufTensor& tensor = place.tensor;
  tensor.name = reader.read_string("tensor name");
  const auto rank = reader.read<uint32_t>(tensor.name);
  if (rank < 1 || rank > static_cast<uint32_t>(kMaxDims)) {
    fail(ErrorCode::kModel, "{}: {}: {} dimensions, expected 1 to {}", reader.path(), tensor.name, rank, kMaxDims);
  }
  int64_t dims[kMaxDims] = {};
  int64_t elements = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    dims[i] = read_u64(reader, tensor.name);
    if (dims[i] == 0 || __builtin_mul_overflow(elements, dims[i], &elements)) {
      fail(ErrorCode::kModel, "{}: {}: dimension {} is {}: zero, or the product overflows", reader.path(), tensor.name,
           i, dims[i]);
    }
  }
  for (uint32_t i = rank; i-- > 0;) tensor.shape.append(dims[i]);
  const auto type = reader.read<uint32_t>(tensor.name);
  const GgufQuant* quant = find_gguf_quant(type);
  if (!quant) {
    fail(ErrorCode::kUnsupported, "{}: {}: encoding {} is not supported; octet reads {}", reader.path(), tensor.name,
         gguf_type_name(type), supported_gguf_types());
  }
  tensor.type = quant->type;
  if (dims[0] % quant->block_elements != 0) {
    fail(ErrorCode::kModel, "{}: {}: rows of {} are not whole {} blocks of {}", reader.path(), tensor.name, dims[0],
         quant->name, quant->block_elements);
  }
  int64_t size = 0;
  if (__builtin_mul_overflow(elements / quant->block_elements, quant->block_bytes, &size)) {
    fail(ErrorCode::kModel, "{}: {}: shape {} overflows 64 bits", reader.path(), tensor.name, tensor.shape.to_string());
  }
  place.num_bytes = static_cast<uint64_t>(size);
  place.offset = reader.read<uint64_t>(tensor.name);
  return place;
}

uint64_t alignment_of(const GgufFile& file, std::string_view path) {
  const auto it = file.metadata.find("general.alignment");
  if (it == file.metadata.end()) return 32;
  const int64_t* value = std::get_if<int64_t>(&it->second);
  if (!value || *value <= 0 || static_cast<uint64_t>(*value) > kMaxAlignment ||
      !std::has_single_bit(static_cast<uint64_t>(*value))) {
    fail(ErrorCode::kModel, "{}: general.alignment is not a power of two up to {}", path, kMaxAlignment);
  }
  return static_cast<uint64_t>(*value);
}

// Sets each tensor's bytes; they must be aligned, inside `data` and apart from each other.
void place_tensors(std::vector<TensorPlace>& places, std::span<const std::byte> data, uint64_t alignment,
                   std::string_view path) {
  std::vector<const TensorPlace*> by_offset;
  for (TensorPlace& place : places) {
    const std::string& name = place.tensor.name;
    if (place.offset % alignment != 0)
      fail(ErrorCode::kModel, "{}: {}: offset {} is not a multiple of {}", path, name, place.offset, alignment);
    if (place.offset > data.size() || place.num_bytes > data.size() - place.offset) {
      fail(ErrorCode::kModel, "{}: {}: bytes {} to {} lie outside the {} bytes of data; is the file truncated?", path,
           name, place.offset, place.offset + place.num_bytes, data.size());
    }
    place.tensor.bytes = data.subspan(static_cast<size_t>(place.offset), static_cast<size_t>(place.num_bytes));
    by_offset.push_back(&place);
  }
  std::sort(by_offset.begin(), by_offset.end(), [](const auto* a, const auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    if (by_offset[i - 1]->offset + by_offset[i - 1]->num_bytes > by_offset[i]->offset) {
      fail(ErrorCode::kModel, "{}: {} and {} overlap", path, by_offset[i - 1]->tensor.name, by_offset[i]->tensor.name);
    }
  }
}

void check_version(uint32_t version, std::string_view path) {
  if (version == 2 || version == 3) return;
  if ((version & 0xffffu) == 0)
    fail(ErrorCode::kUnsupported, "{}: a big-endian GGUF file; octet reads little-endian ones", path);
  fail(ErrorCode::kUnsupported, "{}: GGUF version {}; octet reads versions 2 and 3", path, version);
}

}  // namespace

GgufFile parse_gguf(std::span<const std::byte> bytes, std::string_view path) {
  Reader reader(bytes, path);
  if (reader.read<uint32_t>("magic") != 0x46554747u) fail(ErrorCode::kModel, "{}: does not start with \"GGUF\"", path);
  check_version(reader.read<uint32_t>("version"), path);
  const auto num_tensors = reader.read<uint64_t>("tensor count");
  const auto num_pairs = reader.read<uint64_t>("metadata count");
  if (num_tensors > reader.remaining() / kMinTensorBytes || num_pairs > reader.remaining() / kMinPairBytes) {
    fail(ErrorCode::kModel, "{}: {} tensors and {} metadata values cannot fit {} bytes", path, num_tensors, num_pairs,
         bytes.size());
  }
  GgufFile file;
  for (uint64_t i = 0; i < num_pairs; ++i) {
    std::string key = reader.read_string("metadata key");
    GgufValue value = read_value(reader, key);
    const auto [it, inserted] = file.metadata.emplace(std::move(key), std::move(value));
    if (!inserted) fail(ErrorCode::kModel, "{}: duplicate metadata key \"{}\"", path, it->first);
  }
  std::vector<TensorPlace> places;
  std::set<std::string> names;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    places.push_back(read_tensor(reader));
    const std::string& name = places.back().tensor.name;
    if (!names.insert(name).second) fail(ErrorCode::kModel, "{}: duplicate tensor {}", path, name);
  }
  const uint64_t alignment = alignment_of(file, path);
  const uint64_t data_offset = (reader.position() + alignment - 1) / alignment * alignment;
  const auto data =
      data_offset <= bytes.size() ? bytes.subspan(static_cast<size_t>(data_offset)) : std::span<const std::byte>{};
  place_tensors(places, data, alignment, path);
  for (TensorPlace& place : places) file.tensors.push_back(std::move(place.tensor));
  return file;
}

}  // namespace octet
