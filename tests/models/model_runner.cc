#include "model_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <thread>

#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/tensor/dispatch.h"

namespace octet {

namespace {

constexpr int64_t kWorkspaceBytes = 64 << 20;

bool is_gpu(Device device) { return device.kind == DeviceKind::kCuda; }

}  // namespace

ModelRunner::ModelRunner(const RunnerOptions& options, Comm* comm)
    : options_(options),
      single_(make_single_comm()),
      comm_(comm != nullptr ? comm : single_.get()),
      stream_(options.device),
      workspace_(is_gpu(options.device) ? Buffer(options.device, kWorkspaceBytes, "workspace") : Buffer()),
      backend_(kernel_table(options.device, is_gpu(options.device) ? KernelSelection::kFastest : options.kernels),
               Launch{.stream = stream_.get(),
                      .threads = &threads_,
                      .scratch = &scratch_,
                      .features = cpu_features(),
                      .gpu = is_gpu(options.device) ? &gpu_properties(options.device) : nullptr,
                      .workspace = make_workspace(workspace_, stream_.get())},
               activation_dtype(options.device)),
      config_(ModelConfig::from_folder(options.folder)),
      quant_(config_.quantization_config(), options.quant, options.plain_dtype),
      lengths_(static_cast<size_t>(options.num_sequences), 0) {
  if (!options.dummy_weights) files_.emplace(options.folder);
  source_.files = files_ ? &*files_ : nullptr;
  source_.quant = &quant_;
  source_.threads = &threads_;
  source_.plain_dtype = options.plain_dtype;
  source_.rank = comm_->rank();
  source_.world_size = comm_->world_size();
  source_.layers = options.layers;
  source_.expert_split = options.expert_split;
  source_.shares_token_scales = !is_gpu(options.device);
  source_.allocate = [this](DType dtype, Shape shape, std::string_view name) {
    buffers_.emplace_back(Device{}, shape.num_elements() * dtype_bytes(dtype), name);
    const Tensor tensor = buffers_.back().tensor(dtype, shape);
    parameters_.emplace(std::string(name), tensor);
    return tensor;
  };
  if (is_gpu(options.device)) source_.place = [this](Tensor written) { return on_device(written, "parameter"); };
  source_.all_reduce_max = [this](std::span<float> values) {
    const Shape shape{static_cast<int64_t>(values.size())};
    comm_->all_reduce_max(Tensor(std::as_writable_bytes(values).data(), DType::kF32, shape));
  };
  if (options.only_plain_runs_fast) {
    source_.runs_fast = [](const QuantFormat& weight, const QuantFormat&, int64_t, int64_t) {
      return !weight.quantized();
    };
  }
  model_ = find_arch(config_).load(config_, Weights(source_), backend_);
  KvCacheLayout layout = model_->kv_layout();
  layout.block_size = kBlockSize;
  layout.dtype = options.kv_dtype;
  kv_.emplace(options.device, layout, options.num_sequences * ((options.max_length + kBlockSize - 1) / kBlockSize));
  arena_.emplace(options.device, model_->activation_bytes(options.max_step_tokens, options.max_step_tokens));
}

Tensor ModelRunner::integers(const std::vector<int32_t>& values, Shape shape) {
  integers_.push_back(values);
  const Tensor written(reinterpret_cast<std::byte*>(integers_.back().data()), DType::kI32, shape);
  if (!is_gpu(options_.device)) return written;
  integers_on_device_.emplace_back(options_.device, written.num_bytes(), "integers");
  const Tensor tensor = integers_on_device_.back().tensor(DType::kI32, shape);
  octet::copy(tensor, written, stream_.get());
  return tensor;
}

Tensor ModelRunner::on_device(ConstTensor tensor, std::string_view name) {
  buffers_.emplace_back(options_.device, tensor.num_bytes(), name);
  const Tensor placed = buffers_.back().tensor(tensor.dtype, tensor.shape);
  octet::copy(placed, tensor, stream_.get());
  synchronize(stream_.get());
  return placed;
}

std::vector<float> ModelRunner::on_host(ConstTensor matrix) const {
  if (!is_gpu(options_.device)) return to_floats(matrix);
  const Buffer memory(Device{}, matrix.num_bytes(), "copy");
  const Tensor copied = memory.tensor(matrix.dtype, matrix.shape);
  octet::copy(copied, matrix, stream_.get());
  synchronize(stream_.get());
  return to_floats(copied);
}

Batch ModelRunner::make_batch(const std::vector<Piece>& pieces) {
  synchronize(stream_.get());
  integers_.clear();
  integers_on_device_.clear();
  const int64_t blocks = kv_->num_blocks() / options_.num_sequences;
  std::vector<int32_t> tokens, positions, slots, starts = {0}, lengths, table;
  for (const Piece& piece : pieces) {
    int64_t& length = lengths_.at(static_cast<size_t>(piece.sequence));
    // Sequence s has every num_sequences-th block, the last one first.
    const auto block = [&](int64_t b) { return (blocks - 1 - b) * options_.num_sequences + piece.sequence; };
    for (const int32_t token : piece.tokens) {
      tokens.push_back(token);
      positions.push_back(static_cast<int32_t>(length));
      slots.push_back(static_cast<int32_t>(block(length / kBlockSize) * kBlockSize + length % kBlockSize));
      ++length;
    }
    OCTET_CHECK(length <= options_.max_length);
    starts.push_back(static_cast<int32_t>(tokens.size()));
    lengths.push_back(static_cast<int32_t>(length));
    for (int64_t b = 0; b < blocks; ++b) table.push_back(static_cast<int32_t>(block(b)));
  }
  const auto t = static_cast<int64_t>(tokens.size());
  const auto s = static_cast<int64_t>(pieces.size());
  return Batch{.token_ids = integers(tokens, Shape{t}),
               .positions = integers(positions, Shape{t}),
               .slot_mapping = integers(slots, Shape{t}),
               .query_start = integers(starts, Shape{s + 1}),
               .seq_lens = integers(lengths, Shape{s}),
               .block_table = integers(table, Shape{s, blocks})};
}

Step ModelRunner::make_step(const std::vector<Piece>& pieces, Tensor residual) {
  arena_->reset();
  return Step{.backend = backend_,
              .arena = *arena_,
              .kv = *kv_,
              .comm = *comm_,
              .batch = make_batch(pieces),
              .observe = observe,
              .observe_input = observe_input,
              .residual = residual};
}

std::vector<float> ModelRunner::step(const std::vector<Piece>& pieces, Tensor residual) {
  Step step = make_step(pieces, residual);
  const Tensor hidden = model_->forward(step);
  return on_host(model_->logits(step, hidden));
}

Tensor ModelRunner::forward(const std::vector<Piece>& pieces, Tensor residual) {
  Step step = make_step(pieces, residual);
  return model_->forward(step);
}

std::vector<int32_t> ModelRunner::generate(const std::vector<int32_t>& prompt, int chunk, int num_new, int sequence) {
  std::vector<float> logits;
  for (size_t begin = 0; begin < prompt.size(); begin += static_cast<size_t>(chunk)) {
    const size_t end = std::min(prompt.size(), begin + static_cast<size_t>(chunk));
    logits = step(
        {Piece{sequence, {prompt.begin() + static_cast<int64_t>(begin), prompt.begin() + static_cast<int64_t>(end)}}});
  }
  std::vector<int32_t> tokens;
  while (true) {
    const auto last = logits.end() - vocab_size();
    tokens.push_back(static_cast<int32_t>(std::max_element(last, logits.end()) - last));
    if (static_cast<int>(tokens.size()) == num_new) return tokens;
    logits = step({Piece{sequence, {tokens.back()}}});
  }
}

std::string golden_folder(const std::string& variant) {
  return std::string(OCTET_SOURCE_DIR) + "/tests/golden/models/" + variant;
}

// Read apart from the reader under test: 8 bytes of length, a JSON header, the data.
Recording::Recording(const std::string& variant, const std::string& file)
    : bytes_(read_file(golden_folder(variant) + "/" + file, int64_t{1} << 28)) {
  uint64_t length = 0;
  std::memcpy(&length, bytes_.data(), sizeof(length));
  header_ = parse_json(std::string_view(bytes_).substr(8, length), file);
  bytes_ = bytes_.substr(8 + length);
}

Recording::Part Recording::part(const std::string& name) const {
  const Json& entry = header_.at(name);
  return Part{dtype_from_safetensors(entry.at("dtype").get<std::string>()).value(), entry.at("data_offsets").at(0),
              entry.at("data_offsets").at(1)};
}

std::vector<float> Recording::floats(const std::string& name) const {
  const Part p = part(name);
  OCTET_CHECK(p.dtype == DType::kF32);
  std::vector<float> values(static_cast<size_t>((p.end - p.begin) / 4));
  std::memcpy(values.data(), bytes_.data() + p.begin, values.size() * 4);
  return values;
}

std::vector<int32_t> Recording::integers(const std::string& name) const {
  const Part p = part(name);
  OCTET_CHECK(p.dtype == DType::kI32);
  std::vector<int32_t> values(static_cast<size_t>((p.end - p.begin) / 4));
  std::memcpy(values.data(), bytes_.data() + p.begin, values.size() * 4);
  return values;
}

std::vector<double> row_errors(const std::vector<float>& a, const std::vector<float>& b, int64_t columns) {
  OCTET_CHECK(a.size() == b.size() && !b.empty());
  std::vector<double> errors;
  for (size_t begin = 0; begin < a.size(); begin += static_cast<size_t>(columns)) {
    double difference = 0.0, largest = 0.0;
    for (size_t i = begin; i < begin + static_cast<size_t>(columns); ++i) {
      const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
      difference = d <= difference ? difference : d;  // NaN stays
      largest = std::max(largest, std::abs(static_cast<double>(b[i])));
    }
    errors.push_back(difference / largest);
  }
  return errors;
}

double row_error(const std::vector<float>& a, const std::vector<float>& b, int64_t columns) {
  double worst = 0.0;
  for (const double error : row_errors(a, b, columns)) worst = error <= worst ? worst : error;
  return worst;
}

std::vector<float> to_floats(ConstTensor matrix) {
  std::vector<float> values;
  for (int64_t r = 0; r < matrix.dim(0); ++r) {
    const float* row = matrix.row<float>(r);
    values.insert(values.end(), row, row + matrix.dim(1));
  }
  return values;
}

std::vector<Piece> pieces_of(const std::vector<int32_t>& tokens, int length) {
  std::vector<Piece> pieces;
  for (auto begin = tokens.begin(); begin < tokens.end(); begin += length) {
    pieces.push_back(Piece{static_cast<int>(pieces.size()), {begin, begin + length}});
  }
  return pieces;
}

void expect_same_but_for_flips(const std::vector<float>& logits, const std::vector<float>& expected, int64_t columns) {
  std::vector<double> errors = row_errors(logits, expected, columns);
  std::sort(errors.begin(), errors.end());
  EXPECT_LT(errors[errors.size() * 9 / 10 - 1], 1e-4);
  EXPECT_LT(errors.back(), 0.25);
}

void on_ranks(int world_size, const std::function<void(int rank, Comm& comm)>& fn) {
  const std::vector<std::unique_ptr<Comm>> comms = make_cpu_comms(world_size);
  std::vector<std::exception_ptr> faults(static_cast<size_t>(world_size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      const auto r = static_cast<size_t>(rank);
      try {
        fn(rank, *comms[r]);
      } catch (...) {
        faults[r] = std::current_exception();
        comms[r]->abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& fault : faults) {
    if (fault) std::rethrow_exception(fault);
  }
}

}  // namespace octet
