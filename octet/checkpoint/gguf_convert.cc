// convert_gguf: a GGUF file to a Hugging Face folder.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "octet/base/error.h"
#include "octet/base/json.h"
#include "octet/checkpoint/gguf.h"
#include "octet/checkpoint/gguf_llama.h"
#include "octet/checkpoint/gguf_tokenizer.h"
#include "octet/checkpoint/output_folder.h"
#include "octet/checkpoint/safetensors_writer.h"

namespace octet {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kPieceBytes = int64_t{8} << 20;  // of a tensor held as F32 at a time

void write_json(const OutputFolder& out, std::string_view name, const Json& json, const std::string& gguf_path) {
  try {
    write_file(out.file(name), json.dump(2) + "\n");
  } catch (const Json::type_error&) {
    fail(ErrorCode::kModel, "{}: {} would hold text that is not UTF-8", gguf_path, name);
  }
}

// Rounds to nearest even; `to` has room for from.size() values of `dtype`.
void convert_values(std::span<const float> from, DType dtype, std::vector<std::byte>& to, const LlamaTensor& tensor) {
  const auto width = static_cast<size_t>(dtype_bytes(dtype));
  to.resize(from.size() * width);
  for (size_t i = 0; i < from.size(); ++i) {
    float stored = from[i];
    if (dtype == DType::kF32) {
      std::memcpy(to.data() + i * width, &stored, width);
    } else if (dtype == DType::kBF16) {
      const BF16 value = to_bf16(from[i]);
      stored = to_f32(value);
      std::memcpy(to.data() + i * width, &value, width);
    } else {
      const F16 value = to_f16(from[i]);
      stored = to_f32(value);
      std::memcpy(to.data() + i * width, &value, width);
    }
    if (!std::isfinite(stored)) {
      fail(ErrorCode::kModel, "{}: value {} is not finite as {}", tensor.source->name, from[i], dtype_name(dtype));
    }
  }
}

// Row by row, so that an embedding of gigabytes needs no buffer of its size.
void write_tensor(SafetensorsWriter& writer, const LlamaTensor& tensor, const LlamaDims& dims, DType dtype) {
  const GgufTensor& source = *tensor.source;
  // Biases are permuted value by value: treat [N] as [N, 1] then.
  const bool by_value = source.shape.rank() == 1 && tensor.permuted_heads > 0;
  if (by_value && source.type != GgufType::kF32)
    fail(ErrorCode::kUnsupported, "{}: a bias that is not F32", source.name);
  const int64_t rows = source.shape.rank() == 1 && !by_value ? 1 : source.shape[0];
  const int64_t columns = source.shape.num_elements() / rows;
  const auto row_bytes = source.bytes.size() / static_cast<size_t>(rows);
  const int64_t rows_at_once = std::max<int64_t>(1, kPieceBytes / (columns * int64_t{sizeof(float)}));
  std::vector<float> values;
  std::vector<std::byte> converted;
  for (int64_t first = 0; first < rows; first += rows_at_once) {
    const int64_t count = std::min(rows_at_once, rows - first);
    values.resize(static_cast<size_t>(count * columns));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t from = tensor.permuted_heads > 0 ? unpermuted_source_row(first + i, dims.head_dim) : first + i;
      const GgufTensor row{.name = source.name,
                           .type = source.type,
                           .shape = Shape{columns},
                           .bytes = source.bytes.subspan(static_cast<size_t>(from) * row_bytes, row_bytes)};
      dequantize_gguf(row, std::span(values).subspan(static_cast<size_t>(i * columns), static_cast<size_t>(columns)));
    }
    convert_values(values, dtype, converted, tensor);
    writer.write(tensor.name, converted, first * columns * dtype_bytes(dtype));
  }
}

GgufConversionReport write_weights(const std::string& folder, const std::vector<LlamaTensor>& tensors,
                                   const LlamaDims& dims, DType dtype) {
  std::vector<TensorEntry> entries;
  GgufConversionReport report;
  for (const LlamaTensor& tensor : tensors) {
    entries.push_back({.name = tensor.name, .dtype = dtype, .shape = tensor.source->shape});
    report.num_bytes += tensor.source->shape.num_elements() * dtype_bytes(dtype);
  }
  report.num_tensors = static_cast<int64_t>(entries.size());
  SafetensorsWriter writer(folder, std::move(entries));
  for (const LlamaTensor& tensor : tensors) write_tensor(writer, tensor, dims, dtype);
  writer.finish();
  return report;
}

Json generation_config(const GgufTokenizer& tokenizer) {
  Json config = Json::object();
  if (tokenizer.bos_token_id >= 0) config["bos_token_id"] = tokenizer.bos_token_id;
  const std::vector<int64_t>& eos = tokenizer.eos_token_ids;
  if (eos.size() == 1) config["eos_token_id"] = eos.front();
  if (eos.size() > 1) config["eos_token_id"] = eos;
  return config;
}

}  // namespace

GgufConversionReport convert_gguf(const GgufConversion& conversion) {
  const DType dtype = conversion.dtype;
  if (dtype != DType::kBF16 && dtype != DType::kF16 && dtype != DType::kF32) {
    fail(ErrorCode::kUsage, "a GGUF file is converted to bf16, f16 or f32, not {}", dtype_name(dtype));
  }
  const MappedFile mapped(conversion.gguf_path);
  const GgufFile file = parse_gguf(mapped.bytes(), conversion.gguf_path);
  const GgufMetadata metadata(file, conversion.gguf_path);
  llama_dims_from_gguf(metadata, 0);  // says first when the architecture is another
  const GgufTokenizer tokenizer = tokenizer_from_gguf(metadata);
  const LlamaDims dims = llama_dims_from_gguf(metadata, tokenizer.num_tokens);
  const std::vector<LlamaTensor> tensors = llama_tensors_from_gguf(file, dims, conversion.gguf_path);
  const Json config = llama_config_from_gguf(
      {.file = file, .metadata = metadata, .dims = dims, .tokenizer = tokenizer, .dtype = dtype});

  const OutputFolder out(conversion.out_folder,
                         {.may_replace = [](const fs::path& folder) { return fs::exists(folder / kConversionMark); },
                          .replaceable = "a folder that octet converted a model to"});
  write_json(out, "config.json", config, conversion.gguf_path);
  write_json(out, "generation_config.json", generation_config(tokenizer), conversion.gguf_path);
  write_json(out, "tokenizer.json", tokenizer.tokenizer, conversion.gguf_path);
  write_json(out, "tokenizer_config.json", tokenizer.tokenizer_config, conversion.gguf_path);
  write_json(out, kConversionMark,
             {{"source", fs::path(conversion.gguf_path).filename().string()}, {"dtype", dtype_name(dtype)}},
             conversion.gguf_path);
  const GgufConversionReport report = write_weights(out.partial(), tensors, dims, dtype);
  out.finish();
  return report;
}

}  // namespace octet
