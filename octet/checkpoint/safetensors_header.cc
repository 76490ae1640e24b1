// The header of a safetensors file: a JSON object of fixed form, read event by event. No document tree is built: a
// header may hold a million tensors, and a tree of them would cost a gigabyte before the first check.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <unordered_set>

#include "octet/base/error.h"
#include "octet/base/json.h"
#include "octet/checkpoint/safetensors.h"

namespace octet {
namespace {

constexpr uint64_t kMaxHeaderBytes = uint64_t{64} << 20;
constexpr size_t kMaxTensors = 1'000'000;
constexpr size_t kMaxNameBytes = 1024;
constexpr int64_t kPrefixBytes = 8;  // the header length

// Depth 1 holds tensor names, depth 2 a tensor's fields (or the metadata's strings), depth 3 the numbers of an array.
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(std::string_view path, SafetensorsHeader& header) : path_(path), header_(header) {}

  bool start_object(std::size_t) override {
    if (depth_ >= 2) unexpected("an object");
    if (depth_ == 1 && !in_metadata_) begin_tensor();
    ++depth_;
    return true;
  }
  bool end_object() override {
    if (depth_ == 2 && !in_metadata_) end_tensor();
    if (depth_ == 2) in_metadata_ = false;
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ != 2 || in_metadata_ || (field_ != "shape" && field_ != "data_offsets")) unexpected("an array");
    numbers_.clear();
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    if (field_ == "shape") {
      end_shape();
    } else {
      if (numbers_.size() != 2)
        fail(ErrorCode::kModel, "{}: {}: data_offsets has {} numbers, not 2", path_, name_, numbers_.size());
      tensor_.begin = numbers_[0];
      tensor_.end = numbers_[1];
    }
    return true;
  }
  bool key(string_t& text) override {
    if (depth_ == 1) {
      if (text.size() > kMaxNameBytes)
        fail(ErrorCode::kModel, "{}: a tensor's name has {} bytes, at most {} are allowed", path_, text.size(),
             kMaxNameBytes);
      if (!names_.insert(text).second) fail(ErrorCode::kModel, "{}: duplicate key \"{}\" in the header", path_, text);
      if (names_.size() > kMaxTensors) fail(ErrorCode::kModel, "{}: more than {} tensors", path_, kMaxTensors);
      in_metadata_ = text == "__metadata__";
      name_ = text;
    } else {
      field_ = text;
      if (!fields_.insert(text).second && !in_metadata_) {
        fail(ErrorCode::kModel, "{}: duplicate key \"{}\" in the header's {}", path_, text, name_);
      }
    }
    return true;
  }
  bool string(string_t& text) override {
    if (depth_ != 2) unexpected("a string");
    if (in_metadata_) {
      if (!header_.metadata.emplace(field_, text).second)
        fail(ErrorCode::kModel, "{}: duplicate key \"{}\" in __metadata__", path_, field_);
    } else if (field_ == "dtype") {
      set_dtype(text);
    } else {
      unexpected("a string");
    }
    return true;
  }
  bool number_unsigned(number_unsigned_t number) override {
    if (depth_ != 3) unexpected("a number");
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      fail(ErrorCode::kModel, "{}: {}: {}: {} is too large", path_, name_, field_, number);
    }
    if (numbers_.size() == 64) fail(ErrorCode::kModel, "{}: {}: {} has more than 64 numbers", path_, name_, field_);
    numbers_.push_back(static_cast<int64_t>(number));
    return true;
  }
  bool number_integer(number_integer_t) override { unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { unexpected("a number that is not an integer"); }
  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool binary(binary_t&) override { unexpected("binary"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail(ErrorCode::kModel, "{}: the header is not valid JSON at its byte {}", path_, position);
  }

 private:
  [[noreturn]] void unexpected(std::string_view what) const {
    fail(ErrorCode::kModel, "{}: the header has {} at \"{}\" \"{}\", where safetensors has none", path_, what, name_,
         field_);
  }

  void begin_tensor() {
    tensor_ = SafetensorsEntry{};
    tensor_.entry.name = name_;
    fields_.clear();
    field_.clear();
  }

  void end_tensor() {
    for (const char* field : {"dtype", "shape", "data_offsets"}) {
      if (!fields_.contains(field)) fail(ErrorCode::kModel, "{}: {}: {} is missing", path_, name_, field);
    }
    header_.entries.push_back(std::move(tensor_));
  }

  void set_dtype(const std::string& text) {
    const std::optional<DType> dtype = dtype_from_safetensors(text);
    if (!dtype) fail(ErrorCode::kUnsupported, "{}: dtype {} of tensor {} is not supported", path_, text, name_);
    tensor_.entry.dtype = *dtype;
  }

  void end_shape() {
    if (numbers_.size() > static_cast<size_t>(kMaxDims)) {
      fail(ErrorCode::kUnsupported, "{}: {}: {} dimensions, at most {} are supported", path_, name_, numbers_.size(),
           kMaxDims);
    }
    for (int64_t dim : numbers_) tensor_.entry.shape.append(dim);
  }

  std::string_view path_;
  SafetensorsHeader& header_;
  std::unordered_set<std::string> names_;
  std::unordered_set<std::string> fields_;
  std::string name_;
  std::string field_;
  bool in_metadata_ = false;
  int depth_ = 0;
  std::vector<int64_t> numbers_;
  SafetensorsEntry tensor_;
};

// The bytes that dtype and shape ask for; nothing when they exceed 64 bits. The product of the other dimensions is
// checked even when one of them is zero: a strange shape is not made harmless by that.
std::optional<int64_t> checked_bytes(const TensorEntry& entry) {
  int64_t product = dtype_bytes(entry.dtype);
  bool empty = false;
  for (int i = 0; i < entry.shape.rank(); ++i) {
    if (entry.shape[i] == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(product, entry.shape[i], &product)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : product;
}

void check_layout(const SafetensorsHeader& header, int64_t data_bytes, std::string_view path) {
  int64_t next = 0;
  for (const SafetensorsEntry& tensor : header.entries) {
    const std::string& name = tensor.entry.name;
    if (tensor.end < tensor.begin)
      fail(ErrorCode::kModel, "{}: {}: data_offsets [{}, {}] run backwards", path, name, tensor.begin, tensor.end);
    if (tensor.end > data_bytes) {
      fail(ErrorCode::kModel,
           "{}: {}: data_offsets end at {}, but the file holds only {} bytes of data; is it truncated?", path, name,
           tensor.end, data_bytes);
    }
    const std::optional<int64_t> size = checked_bytes(tensor.entry);
    if (!size)
      fail(ErrorCode::kModel, "{}: {}: shape {} overflows 64 bits", path, name, tensor.entry.shape.to_string());
    if (*size != tensor.end - tensor.begin) {
      fail(ErrorCode::kModel, "{}: {}: {} {} needs {} bytes, data_offsets [{}, {}] hold {}", path, name,
           dtype_safetensors_name(tensor.entry.dtype), tensor.entry.shape.to_string(), *size, tensor.begin, tensor.end,
           tensor.end - tensor.begin);
    }
    if (tensor.begin != next) {
      fail(ErrorCode::kModel, "{}: {}: starts at byte {}, expected {}: tensors must follow each other without {}", path,
           name, tensor.begin, next, tensor.begin < next ? "overlaps" : "holes");
    }
    next = tensor.end;
  }
  if (next != data_bytes)
    fail(ErrorCode::kModel, "{}: the tensors cover {} bytes, the file holds {}", path, next, data_bytes);
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file_bytes, int64_t file_size,
                                           std::string_view path) {
  if (file_size < kPrefixBytes || static_cast<int64_t>(file_bytes.size()) < kPrefixBytes) {
    fail(ErrorCode::kModel, "{}: {} bytes is too short for a safetensors file", path, file_size);
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint64_t>(file_bytes[static_cast<size_t>(i)]);
  if (length > kMaxHeaderBytes)
    fail(ErrorCode::kModel, "{}: header of {} bytes, at most {} are read; is this a safetensors file?", path, length,
         kMaxHeaderBytes);
  const auto header_bytes = static_cast<int64_t>(length);
  if (header_bytes > file_size - kPrefixBytes ||
      header_bytes > static_cast<int64_t>(file_bytes.size()) - kPrefixBytes) {
    fail(ErrorCode::kModel, "{}: header of {} bytes, but the file has only {}; is it truncated?", path, header_bytes,
         file_size);
  }
  const std::string_view text(reinterpret_cast<const char*>(file_bytes.data()) + kPrefixBytes,
                              static_cast<size_t>(header_bytes));
  if (!text.starts_with('{'))
    fail(ErrorCode::kModel, "{}: the header does not start with '{{'; is this a safetensors file?", path);

  SafetensorsHeader header;
  header.data_offset = kPrefixBytes + header_bytes;
  HeaderReader reader(path, header);
  Json::sax_parse(text.begin(), text.end(), &reader);
  std::stable_sort(header.entries.begin(), header.entries.end(),
                   [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                     return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
                   });
  check_layout(header, file_size - header.data_offset, path);
  return header;
}

}  // namespace octet
