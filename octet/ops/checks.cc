// check() of every op: the contracts of the headers, as far as shapes and dtypes state them.
#include "octet/ops/ops.h"

namespace octet {
namespace {

constexpr std::initializer_list<DType> kActivation = {DType::kF32, DType::kBF16};
constexpr std::initializer_list<DType> kCache = {DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2};

void check_output(ShapeCheck& check, std::string_view name, const QuantTensor& out,
                  std::initializer_list<std::string_view> dims) {
  check.quantized(name, out, dims);
  check.dtype(name, out.data, {DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kI8});
  check.that(!out.format.quantized() || is_quantized_activation(out.format) || token_scale_given(out.format),
             "an activation is plain or in a format of quantize.h");
}

void check_head_scales(ShapeCheck& check, const ConstTensor& k, const ConstTensor& v) {
  check.that(static_cast<bool>(k) == static_cast<bool>(v), "k_head_scale and v_head_scale are both there or neither");
  if (!k) return;
  check.tensor("k_head_scale", k, {"Hkv"});
  check.tensor("v_head_scale", v, {"Hkv"});
  check.dtype("k_head_scale", k, {DType::kF32});
  check.dtype("v_head_scale", v, {DType::kF32});
}

}  // namespace

bool is_matmul_x(const QuantFormat& format) {
  const Granularity g = format.granularity;
  if (g == Granularity::kNone) return true;
  const bool rows = g == Granularity::kToken || g == Granularity::kTensor;
  if (format.dtype == DType::kI8) return rows;
  return !format.zero_point && (rows || (g == Granularity::kGroup && format.group_cols > 0));
}
bool is_matmul_weight(const QuantFormat& format) {
  const Granularity g = format.granularity;
  if (format.zero_point) return false;
  if (g == Granularity::kGroup) return format.group_cols > 0;
  if (g == Granularity::kBlock) return format.group_cols > 0 && format.group_rows > 0;
  return g != Granularity::kToken;
}

void EmbeddingOp::check() const {
  ShapeCheck check(kName);
  check.tensor("out", out, {"T", "H"});
  check.tensor("table", table, {"V", "H"});
  check.tensor("token_ids", token_ids, {"T"});
  check.dtype("out", out, kActivation);
  check.dtype("table", table, {DType::kF32, DType::kBF16, DType::kF16});
  check.dtype("token_ids", token_ids, {DType::kI32});
}

void GatherRowsOp::check() const {
  ShapeCheck check(kName);
  check.tensor("out", out, {"R", "H"});
  check.tensor("x", x, {"T", "H"});
  check.tensor("rows", rows, {"R"});
  check.dtype("x", x, kActivation);
  check.dtype("rows", rows, {DType::kI32});
  check.that(out.dtype == x.dtype, "out.dtype == x.dtype");
}

void MoveIntsOp::check() const {
  ShapeCheck check(kName);
  for (const IntMove& move : moves) {
    if (!move.to) continue;
    const ConstTensor* const ints[] = {&move.from, &move.to_index, &move.from_index};
    check.dtype("to", move.to, {DType::kI32});
    check.that(move.to.shape.rank() == 1 && move.from, "to and from are lists");
    for (const ConstTensor* tensor : ints) {
      if (!*tensor) continue;
      check.dtype("from or an index", *tensor, {DType::kI32});
      check.that(tensor->shape.rank() == 1, "from and the indices are lists");
    }
    const bool two = move.to_index && move.from_index;
    check.that(!two || move.to_index.dim(0) == move.from_index.dim(0), "as many places to move from as to");
    check.that(move.to_index || move.count() <= move.to.dim(0), "room in `to`");
    check.that(move.from_index || move.count() <= move.from.dim(0), "enough in `from`");
  }
}

void RmsNormOp::check() const {
  ShapeCheck check(kName);
  check_output(check, "out", out, {"T", "H"});
  check.tensor("residual", residual, {"T", "H"});
  check.dtype("residual", residual, kActivation);
  if (x) {
    check.tensor("x", x, {"T", "H"});
    check.dtype("x", x, kActivation);
  }
  check.tensor("weight", weight, {"H"});
  check.dtype("weight", weight, {DType::kF32});
}

void QuantizeOp::check() const {
  ShapeCheck check(kName);
  check_output(check, "out", out, {"T", "K"});
  check.tensor("x", x, {"T", "K"});
  check.dtype("x", x, kActivation);
}

void MatmulOp::check() const {
  ShapeCheck check(kName);
  check.tensor("out", out, {"T", "N"});
  check.dtype("out", out, kActivation);
  check.quantized("x", x, {"T", "K"});
  check.quantized("weight", weight, {"N", "K"});
  check.that(is_matmul_x(x.format), "x is plain, or per token, tensor or group");
  check.that(is_matmul_weight(weight.format), "weight is plain, or per tensor, channel, group or block");
  if (bias) {
    check.tensor("bias", bias, {"N"});
    check.dtype("bias", bias, {DType::kF32});
  }
  check.that(weight.data.contiguous(), "weight is contiguous");
}

void SampleOp::check() const {
  ShapeCheck check(kName);
  check.tensor("index", index, {"T"});
  check.tensor("x", x, {"T", "V"});
  check.tensor("draws", draws, {"T", "words"});
  check.dtype("index", index, {DType::kI32});
  check.dtype("x", x, {DType::kF32});
  check.dtype("draws", draws, {DType::kI32});
  check.that(x.dim(1) <= int64_t{1} << 20, "V is at most 2^20");
  check.that(draws.dim(1) == kRowDrawWords && draws.contiguous(), "draws are RowDraws, one after the other");
}

void SiluAndMulOp::check() const {
  ShapeCheck check(kName);
  check_output(check, "out", out, {"T", "I"});
  check.tensor("x", x, {"T", "2I"});
  check.dtype("x", x, kActivation);
  check.that(x.dim(1) == 2 * out.data.dim(1), "x has twice the columns of out");
}

void RopeTableOp::check() const {
  ShapeCheck check(kName);
  check.tensor("cos", cos, {"T", "R/2"});
  check.tensor("sin", sin, {"T", "R/2"});
  check.tensor("positions", positions, {"T"});
  check.tensor("inv_freq", inv_freq, {"R/2"});
  check.dtype("cos", cos, {DType::kF32});
  check.dtype("sin", sin, {DType::kF32});
  check.dtype("positions", positions, {DType::kI32});
  check.dtype("inv_freq", inv_freq, {DType::kF32});
}

void RopeKvOp::check() const {
  ShapeCheck check(kName);
  check.tensor("k_cache", k_cache, {"num_blocks", "Hkv", "block_size", "D"});
  check.tensor("v_cache", v_cache, {"num_blocks", "Hkv", "block_size", "D"});
  check.dtype("k_cache", k_cache, kCache);
  check.that(v_cache.dtype == k_cache.dtype, "k_cache.dtype == v_cache.dtype");
  check.tensor("q_out", q_out, {"T", "Hq*D"});
  check.tensor("qkv", qkv, {"T", "(Hq+2Hkv)*D"});
  check.dtype("qkv", qkv, kActivation);
  check.that(q_out.dtype == qkv.dtype, "q_out.dtype == qkv.dtype");
  check.that(q_out.dim(1) % head_dim() == 0, "Hq*D is a multiple of D");
  check.that(qkv.dim(1) == (num_heads() + 2 * num_kv_heads()) * head_dim(), "qkv has Hq + 2 Hkv heads");
  check.tensor("cos", cos, {"T", "R/2"});
  check.tensor("sin", sin, {"T", "R/2"});
  check.that(2 * cos.dim(1) <= head_dim(), "R <= D");
  check.tensor("slot_mapping", slot_mapping, {"T"});
  check.dtype("slot_mapping", slot_mapping, {DType::kI32});
  if (q_norm) check.tensor("q_norm", q_norm, {"D"});
  if (k_norm) check.tensor("k_norm", k_norm, {"D"});
  check_head_scales(check, k_head_scale, v_head_scale);
}

void PagedAttentionOp::check() const {
  ShapeCheck check(kName);
  check.tensor("k_cache", k_cache, {"num_blocks", "Hkv", "block_size", "D"});
  check.tensor("v_cache", v_cache, {"num_blocks", "Hkv", "block_size", "D"});
  check.dtype("k_cache", k_cache, kCache);
  check.that(v_cache.dtype == k_cache.dtype, "k_cache.dtype == v_cache.dtype");
  check.tensor("q", q, {"T", "Hq*D"});
  check.tensor("out", out, {"T", "Hq*V"});
  check.dtype("q", q, kActivation);
  check.dtype("out", out, kActivation);
  if (quantized.data) check_output(check, "quantized", quantized, {"T", "Hq*V"});
  check.that(q.dim(1) % (head_dim() * num_kv_heads()) == 0, "Hq is a multiple of Hkv");
  check.that(out.dim(1) % num_heads() == 0 && value_dim() <= head_dim(), "out has Hq heads of at most D");
  check.tensor("seq_lens", seq_lens, {"S"});
  check.tensor("block_table", block_table, {"S", "B"});
  check.tensor("query_start", query_start, {"S+1"});
  check.that(query_start.dim(0) == seq_lens.dim(0) + 1, "query_start has S + 1 entries");
  check.dtype("seq_lens", seq_lens, {DType::kI32});
  check.dtype("block_table", block_table, {DType::kI32});
  check.dtype("query_start", query_start, {DType::kI32});
  check.that(sliding_window >= 0, "sliding_window >= 0");
  check_head_scales(check, k_head_scale, v_head_scale);
}

void RopeAttentionOp::check() const {
  rope.check();
  attention.check();
  ShapeCheck check(kName);
  check.that(attention.q.bytes == rope.q_out.bytes && attention.q.shape == rope.q_out.shape,
             "attention.q is rope.q_out");
  check.that(attention.k_cache.bytes == rope.k_cache.bytes && attention.v_cache.bytes == rope.v_cache.bytes,
             "both parts have the same cache");
  check.that(attention.k_head_scale.bytes == rope.k_head_scale.bytes && attention.k_scale == rope.k_scale &&
                 attention.v_head_scale.bytes == rope.v_head_scale.bytes && attention.v_scale == rope.v_scale,
             "both parts have the same scales");
  check.that(attention.value_dim() == attention.head_dim(), "values are whole");
}

}  // namespace octet
