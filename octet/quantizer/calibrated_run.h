// The units of a plan written layer by layer, with what calibration finds: each layer of the source is run over the
// text, its linears are written, and what was written is run over the text that is held out.
#pragma once

#include "octet/quantizer/calibration.h"
#include "octet/quantizer/options.h"
#include "octet/quantizer/smoothing.h"
#include "octet/quantizer/unit_writer.h"

namespace octet {

struct CalibratedFindings {
  std::vector<LayerFigures> layers;
  ModelFigures model;
};

struct CalibratedTask {
  const QuantizeOptions& options;
  const ModelConfig& config;
  const SafetensorsFolder& source;
  const QuantizePlan& plan;
  const CalibrationText& text;
  std::string folder;  // where the units are written
  Smoothing smoothing;
  int64_t steps_before = 0;  // of progress, that a survey has made
};

// Throws Error{kUnsupported} for an architecture that octet cannot run.
CalibratedFindings run_calibrated(const CalibratedTask& task, UnitWriter& units, ThreadPool& threads);

}  // namespace octet
