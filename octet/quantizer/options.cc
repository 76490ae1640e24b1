#include "octet/quantizer/options.h"

#include "octet/quantizer/expert_coverage.h"

namespace octet {

Json QuantizeReport::to_json() const {
  Json rows = Json::array();
  for (const LinearFigures& figures : linears) rows.push_back(figures.to_json());
  Json json = {{"out", out_folder},
               {"scheme", scheme},
               {"dialect", dialect},
               {"source_bytes", source_bytes},
               {"written_bytes", written_bytes},
               {"num_copied", num_copied},
               {"num_resumed", num_resumed},
               {"seconds", seconds},
               {"linears", rows}};
  if (!model) return json;
  json["model"] = model->to_json();
  json["calibration"] = {
      {"num_tokens", calibration_tokens}, {"all_experts", calibrated_all_experts}, {"digest", calibration_digest}};
  for (const ExpertCoverage& coverage : expert_coverage(linears)) json["experts"].push_back(coverage.to_json());
  for (const LayerFigures& layer : layers) json["layers"].push_back(layer.to_json());
  return json;
}

}  // namespace octet
