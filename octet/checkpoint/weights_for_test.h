// What tests of loading weights need: a checkpoint written byte by byte, and a rank that loads it.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "octet/checkpoint/test_folder.h"
#include "octet/checkpoint/weights.h"
#include "octet/tensor/dispatch.h"

namespace octet {

// A checkpoint written byte by byte, apart from the writer of this folder.
class TestCheckpoint {
 public:
  // A tensor of the same name takes the place of the one before.
  void add(const std::string& name, DType dtype, Shape shape, const std::vector<float>& values) {
    Json dims = Json::array();
    for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
    std::string bytes;
    if (dtype == DType::kI8 || dtype == DType::kU8) {
      for (const float value : values) bytes += static_cast<char>(static_cast<int>(value));
    } else {
      dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3>(dtype, [&]<DType D>() {
        for (const float value : values) {
          const CType<D> element = from_f32<CType<D>>(value);
          bytes.append(reinterpret_cast<const char*>(&element), sizeof(element));
        }
      });
    }
    entries_[name] = {{{"dtype", dtype_safetensors_name(dtype)}, {"shape", dims}}, std::move(bytes)};
  }
  // What the header says of a tensor that has been added: "F8_E8M0" for bytes.
  void call_dtype(const std::string& name, const std::string& dtype) { entries_.at(name).header["dtype"] = dtype; }
  void remove(const std::string& name) { entries_.erase(name); }
  // `misalign`: the data begins at an odd address.
  void write(const TestFolder& folder, bool misalign = false) const {
    Json json;
    std::string bytes;
    for (const auto& [name, entry] : entries_) {
      json[name] = entry.header;
      json[name]["data_offsets"] = {bytes.size(), bytes.size() + entry.bytes.size()};
      bytes += entry.bytes;
    }
    std::string header = json.dump();
    while ((header.size() % 2 == 1) != misalign) header += ' ';
    uint64_t length = header.size();
    std::string file(reinterpret_cast<const char*>(&length), 8);
    folder.write("model.safetensors", file + header + bytes);
  }

 private:
  struct Entry {
    Json header;
    std::string bytes;
  };
  std::map<std::string, Entry> entries_;
};

inline std::vector<float> ramp(size_t count, float first, float step) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = first + step * static_cast<float>(i);
  return values;
}

inline std::vector<float> floats(ConstTensor tensor) {
  std::vector<float> values;
  const int64_t columns = tensor.rank() == 2 ? tensor.dim(1) : 1;
  dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kI8>(tensor.dtype, [&]<DType D>() {
    for (int64_t r = 0; r < tensor.dim(0); ++r) {
      for (int64_t c = 0; c < columns; ++c) values.push_back(static_cast<float>(to_f32(tensor.row<CType<D>>(r)[c])));
    }
  });
  return values;
}

// One rank that loads from a folder, or dummy weights.
class Loader {
 public:
  struct Options {
    std::string quantization;
    std::string quantization_config;  // JSON
    DType plain = DType::kF32;
    int rank = 0;
    int world_size = 1;
    bool quantize_lm_head = false;
  };
  explicit Loader(const std::string& folder) : Loader(folder, Options()) {}
  Loader(const std::string& folder, const Options& options)
      : json_(options.quantization_config.empty() ? Json() : parse_json(options.quantization_config, "test")),
        quant_(json_.is_null() ? nullptr : &json_,
               QuantOptions{.quantization = options.quantization, .quantize_lm_head = options.quantize_lm_head},
               options.plain) {
    if (!folder.empty()) files_.emplace(folder);
    source.files = files_ ? &*files_ : nullptr;
    source.quant = &quant_;
    source.threads = &threads_;
    source.plain_dtype = options.plain;
    source.rank = options.rank;
    source.world_size = options.world_size;
    source.allocate = [this](DType dtype, Shape shape, std::string_view) {
      memory_.emplace_back(static_cast<size_t>(shape.num_elements() * dtype_bytes(dtype)), std::byte{0x7f});
      return Tensor(memory_.back().data(), dtype, shape);
    };
  }
  Weights root() { return Weights(source); }

  WeightSource source;

 private:
  Json json_;
  QuantConfig quant_;
  ThreadPool threads_{2};
  std::optional<SafetensorsFolder> files_;
  std::deque<std::vector<std::byte>> memory_;
};

inline LinearPart whole(const std::string& name, int64_t n) { return LinearPart{.name = name, .n = n, .local_n = n}; }

}  // namespace octet
