// check() of the ops of multi-head latent attention.
#include "octet/ops/head_matmul.h"
#include "octet/ops/latent_kv.h"

namespace octet {
namespace {

constexpr std::initializer_list<DType> kActivation = {DType::kF32, DType::kBF16};

}  // namespace

void HeadMatmulOp::check() const {
  ShapeCheck check(kName);
  check.tensor("weight", weight, {"H", "N", "K"});
  check.dtype("weight", weight, {DType::kF32, DType::kBF16, DType::kF16});
  check.that(weight.contiguous(), "weight is contiguous");
  check.tensor("x", x, {"T", "H*x_step"});
  check.dtype("x", x, kActivation);
  check.tensor("out", out, {"T", "H*out_step"});
  check.dtype("out", out, kActivation);
  check.that(x.dim(1) == num_heads() * x_step && x_first >= 0 && x_first + weight.dim(2) <= x_step,
             "x has K columns of each head");
  check.that(out.dim(1) == num_heads() * out_step && out_first >= 0 && out_first + weight.dim(1) <= out_step,
             "out has N columns of each head");
}

void LatentKvOp::check() const {
  ShapeCheck check(kName);
  check.tensor("norm", norm, {"L"});
  check.dtype("norm", norm, {DType::kF32});
  check.tensor("cos", cos, {"T", "R/2"});
  check.tensor("sin", sin, {"T", "R/2"});
  check.tensor("slot_mapping", slot_mapping, {"T"});
  check.dtype("slot_mapping", slot_mapping, {DType::kI32});
  check.tensor("kv", kv, {"T", "L+R"});
  check.dtype("kv", kv, kActivation);
  check.tensor("cache", cache, {"num_blocks", "1", "block_size", "L+R"});
  check.dtype("cache", cache, {DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2});
  check.that(cache.dim(1) == 1 && cache.dim(3) == cached_dim(), "the cache has one head of L + R");
  check.tensor("q_out", q_out, {"T", "H*(L+R)"});
  check.tensor("q", q, {"T", "H*(P+R)"});
  check.that(q.dtype == kv.dtype && q_out.dtype == kv.dtype, "q, q_out and kv have one dtype");
  check.that(q_out.dim(1) % cached_dim() == 0 && num_heads() > 0 && q.dim(1) % num_heads() == 0 &&
                 query_dim() >= rotated_dim(),
             "q and q_out have H heads");
}

}  // namespace octet
