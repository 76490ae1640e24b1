// UnitWriter: writes the units of a plan, those that are not done yet, and journals them.
#pragma once

#include <string>
#include <vector>

#include "octet/quantizer/journal.h"
#include "octet/quantizer/quantize_linears.h"

namespace octet {

// The scales of one layer's KV cache: one each, or one per head; empty where none are written.
struct CacheScales {
  std::vector<float> k, v;
};

// What calibration found for a unit, where it has to.
struct UnitFindings {
  const UnitInput* input = nullptr;
  const CacheScales* cache = nullptr;
  const Folds* folds = nullptr;
};

class UnitWriter {
 public:
  // All of it outlives this.
  UnitWriter(const QuantizePlan& plan, const SafetensorsFolder& source, SafetensorsWriter& writer, Journal& journal,
             ThreadPool& threads)
      : plan_(plan), source_(source), writer_(writer), journal_(journal), threads_(threads) {}

  bool is_done(const PlannedUnit& unit) const { return journal_.find(unit.name) != nullptr; }
  void write(const PlannedUnit& unit, const UnitFindings& found = {});
  // What has been written is on the disk, and done.
  void sync();

  const std::vector<LinearFigures>& linears() const { return linears_; }
  int64_t num_copied() const { return num_copied_; }    // tensors
  int64_t num_resumed() const { return num_resumed_; }  // tensors that an earlier run had written

 private:
  void copy(const std::string& name, const Folds* folds);

  const QuantizePlan& plan_;
  const SafetensorsFolder& source_;
  SafetensorsWriter& writer_;
  Journal& journal_;
  ThreadPool& threads_;
  std::vector<Journal::Entry> unsynced_;
  int64_t unsynced_bytes_ = 0;
  std::vector<LinearFigures> linears_;
  int64_t num_copied_ = 0, num_resumed_ = 0;
};

}  // namespace octet
