// octet inspect: what a checkpoint holds, what would be loaded of it, and which kernel each op would take. Learned from
// the model itself in recording mode: no tensor is read.
#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "octet/checkpoint/hub_cache.h"
#include "octet/engine/recorded_model.h"
#include "octet/kernels/backends.h"
#include "octet/models/model.h"
#include "tools/commands.h"
#include "tools/flags.h"
#include "tools/terminal.h"

namespace octet {
namespace {

// What one rank of a tensor-parallel group holds.
struct RankShare {
  std::vector<Model::LinearRow> linears;
  int64_t weight_bytes = 0, scale_bytes = 0;
  int64_t num_kv_heads = 0, kv_bytes_per_token = 0;
};

struct Recorded {
  ModelConfig config;
  std::string quantization;
  DType dtype = DType::kBF16;
  std::vector<Model::LinearRow> linears;  // of rank 0, as are the cache's heads
  KvCacheLayout kv;
  std::string kv_scales;
  std::vector<RankShare> ranks;
  int64_t weight_bytes = 0, scale_bytes = 0, kv_bytes_per_token = 0;  // of all ranks
  int64_t num_parameters = 0;
};

Recorded record(const ModelConfig& config, const SafetensorsFolder& files, const LlmOptions& options,
                const Backend& backend) {
  Recorded recorded{.config = config};
  recorded.dtype = choose_dtype(options.engine.dtype, config.dtype, backend.device());
  const QuantConfig quant(config.quantization_config(), options.engine.quant, recorded.dtype);
  recorded.quantization = quant.description();
  const auto models = record_ranks(RecordingSource{.config = &config,
                                                   .files = &files,
                                                   .quant = &quant,
                                                   .plain_dtype = recorded.dtype,
                                                   .backend = &backend,
                                                   .world_size = options.engine.tensor_parallel_size,
                                                   .expert_split = options.engine.enable_expert_parallel
                                                                       ? WeightSource::ExpertSplit::kExperts
                                                                       : WeightSource::ExpertSplit::kChannels});
  const KvCacheChoice kv(
      kv_cache_options(options.engine),
      {.config = config, .files = &files, .quant = quant, .model_dtype = recorded.dtype, .device = backend.device()});
  recorded.kv_scales = kv.scales_description();
  std::set<std::string> tensors;  // a rank need not have every expert
  for (const auto& model : models) {
    const KvCacheLayout layout = kv.layout(model->model(), options.engine.block_size);
    recorded.ranks.push_back({.linears = model->model().linears(),
                              .weight_bytes = model->weight_bytes(),
                              .scale_bytes = model->scale_bytes(),
                              .num_kv_heads = layout.num_kv_heads,
                              .kv_bytes_per_token = layout.bytes_per_token()});
    recorded.weight_bytes += model->weight_bytes();
    recorded.scale_bytes += model->scale_bytes();
    recorded.kv_bytes_per_token += layout.bytes_per_token();
    tensors.insert(model->tensors().begin(), model->tensors().end());
  }
  recorded.kv = kv.layout(models.front()->model(), options.engine.block_size);
  recorded.linears = recorded.ranks.front().linears;
  for (const std::string& name : tensors) {
    if (!name.ends_with("_scale")) recorded.num_parameters += files.find(name)->shape.num_elements();
  }
  return recorded;
}

// Linears of a mixture's experts, which go through ExpertMatmulOp.
bool is_stack(const Model::LinearRow& linear) { return linear.module.find(".*.") != std::string::npos; }

// One op as a row: what it is, who takes it, who declines and why.
struct KernelRow {
  std::string op;
  KernelChoice choice;
};

// An address for tensors that are only described, never read.
Tensor described(DType dtype, Shape shape) {
  alignas(64) static std::byte place[64];
  return Tensor(place, dtype, shape);
}

QuantTensor described(const QuantFormat& format, int64_t rows, int64_t cols) {
  const Tensor scale = format.quantized() ? described(DType::kF32, format.scale_shape(rows, cols)) : Tensor{};
  return QuantTensor(described(format.dtype, {rows, cols}), scale, format);
}

QuantFormat input_format(const QuantFormat& activation, const Backend& backend) {
  return activation.quantized() ? activation : plain_format(backend.activation_dtype());
}

std::vector<KernelRow> linear_kernels(const Recorded& recorded, const Backend& backend) {
  std::vector<KernelRow> rows;
  std::map<std::string, bool> seen;
  for (const Model::LinearRow& linear : recorded.linears) {
    if (is_stack(linear)) continue;
    for (const int64_t tokens : {int64_t{1}, int64_t{16}, int64_t{512}}) {
      const QuantFormat x = input_format(linear.activation, backend);
      std::string op = fmt::format("matmul {} x {} [{}, {}], {} tokens", x.to_string(), linear.weight.to_string(),
                                   linear.n, linear.k, tokens);
      if (!seen.emplace(op, true).second) continue;
      const MatmulOp matmul{.out = described(backend.activation_dtype(), {tokens, linear.n}),
                            .x = described(x, tokens, linear.k),
                            .weight = described(linear.weight, linear.n, linear.k)};
      rows.push_back({std::move(op), backend.choose(matmul)});
    }
  }
  return rows;
}

// Of a token that every expert computes: which kernel takes it does not depend on how many there are.
KernelChoice expert_choice(const Model::LinearRow& linear, const Backend& backend) {
  const int64_t experts = linear.count;
  const Tensor offsets = described(DType::kI32, {experts + 1}), order = described(DType::kI32, {experts}),
               rows = described(DType::kI32, {1, experts});
  QuantTensor x = described(input_format(linear.activation, backend), experts, linear.k);
  if (x.format.granularity == Granularity::kTensor) x.scale = described(DType::kF32, {experts});
  QuantTensor weight(described(linear.weight.dtype, {experts, linear.n, linear.k}), {}, linear.weight);
  if (linear.weight.quantized())
    weight.scale = described(DType::kF32, linear.weight.stack_scale_shape(experts, linear.n, linear.k));
  return backend.choose(ExpertMatmulOp{.out = described(backend.activation_dtype(), {experts, linear.n}),
                                       .x = x,
                                       .weight = weight,
                                       .plan = ExpertPlan(offsets, order, rows)});
}

std::vector<KernelRow> expert_kernels(const Recorded& recorded, const Backend& backend) {
  std::vector<KernelRow> rows;
  std::map<std::string, bool> seen;
  for (const Model::LinearRow& linear : recorded.linears) {
    if (!is_stack(linear) || linear.count == 0) continue;
    std::string op =
        fmt::format("expert_matmul {} x {} [{}, {}, {}]", input_format(linear.activation, backend).to_string(),
                    linear.weight.to_string(), linear.count, linear.n, linear.k);
    if (seen.emplace(op, true).second) rows.push_back({std::move(op), expert_choice(linear, backend)});
  }
  return rows;
}

std::vector<KernelRow> other_kernels(const Recorded& recorded, const Backend& backend) {
  const ModelConfig& config = recorded.config;
  const auto world_size = static_cast<int64_t>(recorded.ranks.size());
  const int64_t h = config.hidden_size, heads = config.num_attention_heads / world_size, kv = recorded.kv.num_kv_heads,
                d = recorded.kv.head_dim, inner = config.intermediate_size / world_size;
  const DType a = backend.activation_dtype();
  const QuantFormat format =
      recorded.linears.empty() ? plain_format(a) : input_format(recorded.linears.front().activation, backend);
  const Tensor cache = described(recorded.kv.dtype, {2, kv, recorded.kv.block_size, d});
  const Tensor ids = described(DType::kI32, {1}), angles = described(DType::kF32, {1, d / 2});
  std::vector<KernelRow> rows;
  rows.push_back({"embedding", backend.choose(EmbeddingOp{.out = described(a, {1, h}),
                                                          .table = described(recorded.dtype, {config.vocab_size, h}),
                                                          .token_ids = ids})});
  rows.push_back(
      {"rms_norm to " + format.to_string(), backend.choose(RmsNormOp{.out = described(format, 1, h),
                                                                     .x = described(a, {1, h}),
                                                                     .residual = described(a, {1, h}),
                                                                     .weight = described(DType::kF32, {h})})});
  const RopeKvOp rope{.q_out = described(a, {1, heads * d}),
                      .k_cache = cache,
                      .v_cache = cache,
                      .qkv = described(a, {1, (heads + 2 * kv) * d}),
                      .cos = angles,
                      .sin = angles,
                      .slot_mapping = ids};
  PagedAttentionOp attention{.out = described(a, {1, heads * d}),
                             .q = rope.q_out,
                             .k_cache = cache,
                             .v_cache = cache,
                             .query_start = described(DType::kI32, {2}),
                             .seq_lens = ids,
                             .block_table = described(DType::kI32, {1, 2})};
  if (format.quantized()) attention.quantized = described(format, 1, heads * d);
  const std::string cached = fmt::format("cache {}", dtype_name(recorded.kv.dtype));
  KernelChoice whole = backend.choose(RopeAttentionOp{.rope = rope, .attention = attention});
  if (whole.chosen.empty()) whole.chosen = "its parts";
  rows.push_back({"rope_attention, " + cached, std::move(whole)});
  rows.push_back({"rope_kv, " + cached, backend.choose(rope)});
  rows.push_back({"paged_attention, " + cached, backend.choose(attention)});
  rows.push_back({"silu_and_mul to " + format.to_string(),
                  backend.choose(SiluAndMulOp{.out = described(format, 1, inner), .x = described(a, {1, 2 * inner})})});
  return rows;
}

struct InspectCommand {
  ModelFlags model;
  bool json = false, tensors = false, kernels = false;
  void run() const;
  void print(const Recorded& recorded, const SafetensorsFolder& files, const std::vector<KernelRow>& rows) const;
  void print_json(const Recorded& recorded, const SafetensorsFolder& files, const std::vector<KernelRow>& rows) const;
};

// Linears of the same shape and formats of all layers as one line: "model.layers.*.mlp.down_proj".
std::vector<std::vector<std::string>> linear_table(const std::vector<Model::LinearRow>& linears) {
  std::vector<std::vector<std::string>> table = {{"linear", "count", "[N, K]", "weight", "activation", "bytes"}};
  std::map<std::string, std::pair<size_t, int64_t>> lines;  // first part of the line -> row, count
  for (const Model::LinearRow& linear : linears) {
    std::string name = linear.module;
    const size_t at = name.find(".layers.");
    if (at != std::string::npos) name.replace(at + 8, name.find('.', at + 8) - at - 8, "*");
    const std::string key = fmt::format("{} {} {} {} {}", name, linear.n, linear.k, linear.weight.to_string(),
                                        linear.activation.to_string());
    const auto [it, is_new] = lines.try_emplace(key, table.size(), 0);
    it->second.second += linear.count;
    const Shape scale = linear.weight.scale_shape(linear.n, linear.k);
    const int64_t bytes = linear.n * linear.k * dtype_bytes(linear.weight.dtype) + scale.num_elements() * 4;
    if (is_new)
      table.push_back({name, "", fmt::format("[{}, {}]", linear.n, linear.k), linear.weight.to_string(),
                       linear.activation.quantized() ? linear.activation.to_string() : "plain", ""});
    table[it->second.first][1] = std::to_string(it->second.second);
    table[it->second.first][5] = format_bytes(bytes * it->second.second);
  }
  return table;
}

bool same_linears(const RankShare& a, const RankShare& b) {
  return std::equal(a.linears.begin(), a.linears.end(), b.linears.begin(), b.linears.end(),
                    [](const Model::LinearRow& x, const Model::LinearRow& y) {
                      return x.module == y.module && x.n == y.n && x.k == y.k && x.count == y.count &&
                             x.weight == y.weight && x.activation == y.activation;
                    });
}

// Who holds what: ranks with the same linears one after the other share their table.
void print_ranks(const Recorded& recorded) {
  const auto count = recorded.ranks.size();
  std::vector<std::vector<std::string>> table = {{"rank", "weights", "of it scales", "KV heads", "KV cache per token"}};
  for (size_t rank = 0; rank < count; ++rank) {
    const RankShare& share = recorded.ranks[rank];
    table.push_back({std::to_string(rank), format_bytes(share.weight_bytes), format_bytes(share.scale_bytes),
                     std::to_string(share.num_kv_heads), format_bytes(share.kv_bytes_per_token)});
  }
  if (count > 1) print_now(format_table(table) + "\n");
  for (size_t first = 0; first < count;) {
    size_t end = first + 1;
    while (end < count && same_linears(recorded.ranks[first], recorded.ranks[end])) ++end;
    if (count > 1)
      print_now(end == first + 1 ? fmt::format("rank {}\n", first)
                                 : fmt::format("each of ranks {} to {}\n", first, end - 1));
    print_now(format_table(linear_table(recorded.ranks[first].linears)));
    first = end;
  }
}

void InspectCommand::print(const Recorded& recorded, const SafetensorsFolder& files,
                           const std::vector<KernelRow>& rows) const {
  const ModelConfig& c = recorded.config;
  print_now(fmt::format("{}: {} ({})\n", c.path, c.architecture, c.model_type));
  print_now(fmt::format("  {} layers, hidden {}, {} query and {} KV heads of {}, FFN {}, vocabulary {}, context {}{}\n",
                        c.num_hidden_layers, c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim,
                        c.intermediate_size, c.vocab_size, c.max_position_embeddings,
                        c.tie_word_embeddings ? ", tied embeddings" : ""));
  print_now(fmt::format("  on disk: {} tensors, {}\n", files.entries().size(), format_bytes(files.num_bytes())));
  print_now(fmt::format("  loaded: {} parameters, weights {} (scales {}), dtype {}, quantization {}\n",
                        recorded.num_parameters, format_bytes(recorded.weight_bytes),
                        format_bytes(recorded.scale_bytes), dtype_name(recorded.dtype), recorded.quantization));
  print_now(fmt::format("  KV cache: {}, {} per token{}{}\n\n", dtype_name(recorded.kv.dtype),
                        format_bytes(recorded.kv_bytes_per_token), recorded.kv_scales.empty() ? "" : "; ",
                        recorded.kv_scales));
  print_ranks(recorded);
  if (tensors) {
    std::vector<std::vector<std::string>> table = {{"tensor", "dtype", "shape", "bytes"}};
    for (const auto& [name, entry] : files.entries()) {
      table.push_back({name, std::string(dtype_name(entry.dtype)), entry.shape.to_string(),
                       std::to_string(entry.shape.num_elements() * dtype_bytes(entry.dtype))});
    }
    print_now("\n" + format_table(table));
  }
  if (!kernels) return;
  print_now("\n");
  for (const KernelRow& row : rows) {
    print_now(fmt::format("{}\n  takes {}\n", row.op,
                          row.choice.chosen.empty() ? "nothing: not supported" : row.choice.chosen));
    for (const auto& [name, reason] : row.choice.declined) print_now(fmt::format("  not   {}: {}\n", name, reason));
  }
}

Json json_linears(const std::vector<Model::LinearRow>& linears) {
  Json list = Json::array();
  for (const Model::LinearRow& l : linears) {
    list.push_back({{"module", l.module},
                    {"n", l.n},
                    {"k", l.k},
                    {"count", l.count},
                    {"weight", l.weight.to_string()},
                    {"activation", l.activation.to_string()}});
  }
  return list;
}

void InspectCommand::print_json(const Recorded& recorded, const SafetensorsFolder& files,
                                const std::vector<KernelRow>& rows) const {
  Json report = {{"architecture", recorded.config.architecture},
                 {"model_type", recorded.config.model_type},
                 {"dtype", dtype_name(recorded.dtype)},
                 {"quantization", recorded.quantization},
                 {"num_parameters", recorded.num_parameters},
                 {"weight_bytes", recorded.weight_bytes},
                 {"scale_bytes", recorded.scale_bytes},
                 {"kv_cache_dtype", dtype_name(recorded.kv.dtype)},
                 {"kv_bytes_per_token", recorded.kv_bytes_per_token},
                 {"kv_scales", recorded.kv_scales},
                 {"disk_bytes", files.num_bytes()}};
  report["linears"] = json_linears(recorded.linears);
  report["ranks"] = Json::array();
  for (const RankShare& rank : recorded.ranks) {
    report["ranks"].push_back({{"weight_bytes", rank.weight_bytes},
                               {"scale_bytes", rank.scale_bytes},
                               {"num_kv_heads", rank.num_kv_heads},
                               {"kv_bytes_per_token", rank.kv_bytes_per_token},
                               {"linears", json_linears(rank.linears)}});
  }
  report["tensors"] = Json::array();
  for (const auto& [name, entry] : files.entries()) {
    Json shape = Json::array();
    for (int i = 0; i < entry.shape.rank(); ++i) shape.push_back(entry.shape[i]);
    report["tensors"].push_back(
        {{"name", name}, {"dtype", dtype_name(entry.dtype)}, {"shape", shape}, {"file", files.file_of(name)}});
  }
  report["kernels"] = Json::array();
  for (const KernelRow& row : rows) {
    Json declined = Json::array();
    for (const auto& [name, reason] : row.choice.declined) declined.push_back({{"kernel", name}, {"reason", reason}});
    report["kernels"].push_back({{"op", row.op}, {"kernel", row.choice.chosen}, {"declined", declined}});
  }
  print_now(report.dump() + "\n");
}

void InspectCommand::run() const {
  const LlmOptions options = model.options();
  const std::string folder = resolve_model(options.model, options.revision);
  const ModelConfig config = ModelConfig::from_folder(folder);
  const SafetensorsFolder files(folder);
  ThreadPool threads(1);
  const Device device = parse_device(options.engine.device);
  const Backend backend(kernel_table(device, kernel_selection(options.engine)), describing_launch(device, threads),
                        activation_dtype(device));
  const Recorded recorded = record(config, files, options, backend);
  std::vector<KernelRow> rows = linear_kernels(recorded, backend);
  for (auto more : {expert_kernels(recorded, backend), other_kernels(recorded, backend)})
    std::move(more.begin(), more.end(), std::back_inserter(rows));
  if (json) {
    print_json(recorded, files, rows);
  } else {
    print(recorded, files, rows);
  }
}

}  // namespace

void add_inspect(CLI::App& program) {
  auto command = std::make_shared<InspectCommand>();
  CLI::App* app =
      program.add_subcommand("inspect", "What a checkpoint holds and what would be loaded; reads no weights");
  command->model.add_to(*app);
  app->add_flag("--tensors", command->tensors, "every tensor on disk");
  app->add_flag("--kernels", command->kernels, "the kernel each op would take, and why others decline");
  app->add_flag("--json", command->json, "everything, as one JSON object");
  app->callback([command] { command->run(); });
}

}  // namespace octet
