#include "octet/quantizer/unit_writer.h"

#include "octet/base/error.h"
#include "octet/quant/weight_rows.h"
#include "octet/quantizer/source_tensor.h"

namespace octet {
namespace {

// Bytes of the source after which what was written is synced: what a kill costs at most, without calibration.
constexpr int64_t kBytesPerSync = int64_t{256} << 20;
constexpr int64_t kPieceBytes = int64_t{16} << 20;  // of a tensor that is copied

std::vector<std::byte> in_dtype(ConstTensor values, DType dtype) {
  const int64_t count = values.num_elements();
  std::vector<std::byte> bytes(static_cast<size_t>(count * dtype_bytes(dtype)));
  write_weight_row(Tensor(bytes.data(), dtype, Shape{1, count}), 0,
                   std::span(values.data<float>(), static_cast<size_t>(count)));
  return bytes;
}

}  // namespace

void UnitWriter::copy(const std::string& name, const Folds* folds) {
  SourceTensor tensor(source_, name, threads_);
  std::span<const std::byte> bytes = tensor.bytes();
  std::vector<std::byte> rounded;
  if (const auto it = folds == nullptr ? Folds::const_iterator() : folds->find(name);
      folds != nullptr && it != folds->end()) {
    const DType dtype = source_.find(name)->dtype;
    tensor.apply(it->second, threads_);
    rounded = in_dtype(tensor.matrix(), dtype);
    bytes = rounded;
  }
  for (size_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
    writer_.write(name, bytes.subspan(begin, std::min<size_t>(kPieceBytes, bytes.size() - begin)),
                  static_cast<int64_t>(begin));
  }
}

void UnitWriter::write(const PlannedUnit& unit, const UnitFindings& found) {
  num_copied_ += unit.parts.empty();
  if (const Json* facts = journal_.find(unit.name)) {
    for (const std::string& name : plan_.written_by(unit)) writer_.keep(name);
    for (const Json& figures : *facts) linears_.push_back(LinearFigures::from_json(figures));
    num_resumed_ += unit.parts.empty() ? 1 : static_cast<int64_t>(unit.parts.size());
    return;
  }
  Json facts = Json::array();
  if (unit.parts.empty()) {
    copy(unit.name, found.folds);
  } else {
    const UnitTask task{.plan = plan_, .unit = unit, .source = source_, .input = found.input, .folds = found.folds};
    for (LinearFigures& figures : quantize_linears(task, writer_, threads_)) {
      facts.push_back(figures.to_json());
      linears_.push_back(std::move(figures));
    }
  }
  if (!unit.attention.empty()) {
    const CacheScales* cache = found.cache;
    OCTET_CHECK(cache != nullptr && !cache->k.empty());
    writer_.write(unit.attention + ".k_scale", std::as_bytes(std::span(cache->k)));
    writer_.write(unit.attention + ".v_scale", std::as_bytes(std::span(cache->v)));
  }
  unsynced_.push_back({.unit = unit.name, .facts = std::move(facts)});
  unsynced_bytes_ += unit.source_bytes;
  if (unsynced_bytes_ >= kBytesPerSync) sync();
}

void UnitWriter::sync() {
  writer_.sync();
  journal_.record(unsynced_);
  unsynced_.clear();
  unsynced_bytes_ = 0;
}

}  // namespace octet
