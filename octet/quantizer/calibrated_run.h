// The units of a plan written layer by layer, with what calibration finds: each layer of the source is run over the
// text, its linears are written, and what was written is run over the text that is held out.
#pragma once

#include "octet/quantizer/calibration.h"
#include "octet/quantizer/options.h"
#include "octet/quantizer/unit_writer.h"

namespace octet {

struct CalibratedFindings {
  std::vector<LayerFigures> layers;
  ModelFigures model;
};

// `folder`: where `units` writes. Throws Error{kUnsupported} for an architecture that octet cannot run.
CalibratedFindings run_calibrated(const QuantizeOptions& options, const ModelConfig& config,
                                  const SafetensorsFolder& source, const QuantizePlan& plan,
                                  const CalibrationText& text, const std::string& folder, UnitWriter& units,
                                  ThreadPool& threads);

}  // namespace octet
