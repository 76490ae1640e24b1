#include "octet/layers/mlp.h"

#include "octet/base/error.h"
#include "octet/layers/self_attention.h"

namespace octet {
namespace {

LinearRequest gate_up_request(const Weights& weights, const MlpOptions& options) {
  const WeightSource& source = weights.source();
  if (options.intermediate_size % source.world_size != 0) {
    fail(ErrorCode::kUnsupported, "{}: {} intermediate channels cannot be split over {} ranks", weights.prefix(),
         options.intermediate_size, source.world_size);
  }
  const int64_t local = options.intermediate_size / source.world_size;
  const LinearPart gate{
      .name = "gate_proj", .n = options.intermediate_size, .first_n = source.rank * local, .local_n = local};
  LinearPart up = gate;
  up.name = "up_proj";
  return LinearRequest{.parts = {gate, up}, .k = options.hidden_size, .shard = Shard::kColumn, .bias = options.bias};
}

}  // namespace

GatedMlp::GatedMlp(const Weights& weights, const MlpOptions& options)
    : gate_up_proj_(weights, gate_up_request(weights, options)),
      down_proj_(weights, row_request("down_proj", options.hidden_size, options.intermediate_size, options.bias)) {}

void GatedMlp::operator()(Step& step, const Activation& x, Partial& out) const {
  down_proj_(step, gate_up_proj_(step, x, down_proj_), out);
}

int64_t GatedMlp::scratch_bytes(int64_t t) const {
  return gate_up_proj_.scratch_bytes(t) + down_proj_.input_bytes(t) + down_proj_.scratch_bytes(t);
}

void GatedMlp::describe(std::vector<LinearRow>& rows) const {
  rows.push_back(gate_up_proj_.row());
  rows.push_back(down_proj_.row());
}

Mlp::Mlp(const Weights& weights, double rms_norm_eps, const MlpOptions& options)
    : Sublayer(RmsNorm(weights / "post_attention_layernorm", options.hidden_size, rms_norm_eps)),
      mlp_(weights / "mlp", options) {}

void Mlp::operator()(Step& step, const RopeAngles&, Tensor residual, Partial& x) const {
  const Arena::Scope scope(step.arena);
  mlp_(step, norm()(step, x, residual, mlp_.input()), x);
}

int64_t Mlp::scratch_bytes(int64_t t) const { return mlp_.input().input_bytes(t) + mlp_.scratch_bytes(t); }

}  // namespace octet
