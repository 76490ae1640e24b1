#include "octet/quantizer/unit_writer.h"

#include "octet/base/error.h"
#include "octet/quantizer/source_tensor.h"

namespace octet {
namespace {

// Bytes of the source after which what was written is synced: what a kill costs at most, without calibration.
constexpr int64_t kBytesPerSync = int64_t{256} << 20;
constexpr int64_t kPieceBytes = int64_t{16} << 20;  // of a tensor that is copied

}  // namespace

void UnitWriter::copy(const std::string& name) {
  const SourceTensor tensor(source_, name, threads_);
  const std::span<const std::byte> bytes = tensor.bytes();
  for (size_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
    writer_.write(name, bytes.subspan(begin, std::min<size_t>(kPieceBytes, bytes.size() - begin)),
                  static_cast<int64_t>(begin));
  }
}

void UnitWriter::write(const PlannedUnit& unit, const UnitInput* input, const CacheScales* cache) {
  num_copied_ += unit.parts.empty();
  if (const Json* facts = journal_.find(unit.name)) {
    for (const std::string& name : plan_.written_by(unit)) writer_.keep(name);
    for (const Json& figures : *facts) linears_.push_back(LinearFigures::from_json(figures));
    num_resumed_ += unit.parts.empty() ? 1 : static_cast<int64_t>(unit.parts.size());
    return;
  }
  Json facts = Json::array();
  if (unit.parts.empty()) {
    copy(unit.name);
  } else {
    for (LinearFigures& figures : quantize_linears(plan_, unit, source_, writer_, threads_, input)) {
      facts.push_back(figures.to_json());
      linears_.push_back(std::move(figures));
    }
  }
  if (!unit.attention.empty()) {
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
