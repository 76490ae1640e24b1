// Calibration: a model run layer by layer over text, in memory for one layer and the residual streams: the source over
// all samples, to see the inputs of its linears, and both it and the quantised model over those held out, to see what
// was lost.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "octet/quantizer/calibration_text.h"
#include "octet/quantizer/figures.h"
#include "octet/quantizer/input_statistics.h"
#include "octet/quantizer/layer_runner.h"
#include "octet/quantizer/plan.h"
#include "octet/quantizer/unit_writer.h"

namespace octet {

// The input that a unit's linears share.
struct ObservedInput {
  InputStatistics statistics;  // over the samples
  InputSample sample;          // some rows of them: what choices are tried on
  InputSample held_out;        // over those held out
  std::optional<Hessian> hessian;
  float amax = 0.0f;       // what a static scale holds: the largest of the samples; of experts see share_amax
  int64_t num_beyond = 0;  // elements of the held-out ones that are larger than `bound` times `amax`
};

struct ObservedLayer {
  // By the unit's name: of each that text reaches, and of experts that none reaches, but some other of their layer.
  std::map<std::string, ObservedInput, std::less<>> inputs;
  LayerRunner::CacheMaxima cache;  // over the samples; by head
};

class Calibration {
 public:
  // All of it outlives this. experts: what they see of the samples; of what is held out, what serving would send them.
  // `on_step`: after each step of a layer.
  Calibration(const ModelConfig& config, const SafetensorsFolder& source, const QuantizePlan& plan,
              const CalibrationText& text, ObservedExperts experts, ThreadPool& threads, std::function<void()> on_step);

  int64_t num_layers() const { return config_.num_hidden_layers; }
  int64_t num_steps() const;  // of all layers
  static int64_t count_steps(const CalibrationText& text, int64_t num_layers);
  // Runs the source's next layer.
  enum class Observe : uint8_t { kNothing, kInputs, kHessians };          // kNothing: a layer that is written already
  ObservedLayer run_source(int64_t layer, Observe observe, float bound);  // bound: see ObservedInput
  // Runs the same layer as it was written, over what is held out. Returns the drift.
  double run_written(int64_t layer, const SafetensorsFolder& written, const QuantConfig& quant,
                     const CacheScales& scales);
  // After the last layer.
  ModelFigures compare();

 private:
  // Residual streams, by batch.
  struct Stream {
    std::vector<SequenceBatch> batches;
    std::vector<Buffer> hidden;  // [T, hidden_size] f32
  };
  using AfterStep = std::function<void(const LayerRunner& runner)>;

  Stream make_stream(const std::vector<std::vector<int32_t>>& sequences) const;
  Tensor hidden(const Stream& stream, size_t batch) const;
  void run(LayerRunner& runner, int64_t layer, Stream& stream, const LayerRunner::ObserveInput& observe,
           const AfterStep& after, ObservedExperts experts = ObservedExperts::kRouted);
  const std::string& unit_of(std::string_view linear) const;
  ObservedInput make_input(int64_t num_channels) const;
  void share_amax(int64_t layer, ObservedLayer& seen) const;
  double drift() const;

  const ModelConfig& config_;
  const SafetensorsFolder& source_;
  const QuantizePlan& plan_;
  const CalibrationText& text_;
  ObservedExperts experts_;
  CpuBackend backend_;
  QuantConfig plain_;
  std::function<void()> on_step_;
  std::map<std::string, std::string, std::less<>> units_;  // module -> unit
  Stream samples_, held_out_, written_;
  std::vector<SequenceBatch> all_batches_;  // what a runner of the source runs
  std::unique_ptr<LayerRunner> last_;       // the source's last layer, for its logits
};

}  // namespace octet
