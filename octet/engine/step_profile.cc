#include "octet/engine/step_profile.h"

#include <algorithm>
#include <limits>

#include "octet/device/graph.h"

namespace octet {
namespace {

constexpr int kRepeats = 7;  // of a step cut short, of which the median counts
constexpr int kSteps = 20;   // one behind the other

// Lists kernels, and leaves out those after the first `limit`.
class Cut final : public LaunchObserver {
 public:
  struct Queued {
    std::string kernel, op, shape;
    int64_t bytes = 0;
  };

  Cut(size_t limit, int64_t num_cached_tokens) : limit_(limit), num_cached_tokens_(num_cached_tokens) {}

  void begins(std::string_view op, const OpReads& reads) override {
    next_ = {.kernel = "",
             .op = std::string(op),
             .shape = reads.shape,
             .bytes = reads.bytes + reads.bytes_per_cached_token * num_cached_tokens_};
  }
  // Of a row that queues several kernels the first is taken to read the bytes.
  bool queues(std::string_view kernel) override {
    if (queued_.size() == limit_) return false;
    next_.kernel = kernel;
    queued_.push_back(next_);
    next_.bytes = 0;
    return true;
  }
  const std::vector<Queued>& queued() const { return queued_; }

 private:
  size_t limit_;
  int64_t num_cached_tokens_;
  Queued next_;
  std::vector<Queued> queued_;
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size()) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Microseconds from before to behind `count` replays.
double replay_time(const Graph& graph, Stream stream, int count) {
  Event start(stream.device);
  Event stop(stream.device);
  start.record(stream);
  for (int i = 0; i < count; ++i) graph.replay(stream);
  stop.record(stream);
  stop.wait();
  return 1e3 * stop.milliseconds_since(start);
}

StepProfile::Row& row_of(StepProfile& profile, const Cut::Queued& queued) {
  for (StepProfile::Row& row : profile.rows) {
    if (row.kernel == queued.kernel && row.op == queued.op && row.shape == queued.shape) return row;
  }
  return profile.rows.emplace_back(StepProfile::Row{.kernel = queued.kernel, .op = queued.op, .shape = queued.shape});
}

}  // namespace

StepProfile profile_step(Stream stream, int64_t num_cached_tokens, const std::function<void(LaunchObserver&)>& queue) {
  const auto record = [&](Cut& cut) { return Graph::capture(stream, [&] { queue(cut); }); };
  const auto time = [&](const Graph& graph, int count) {
    std::vector<double> times;
    times.reserve(kRepeats);
    replay_time(graph, stream, 1);
    for (int i = 0; i < kRepeats; ++i) times.push_back(replay_time(graph, stream, count));
    return median(std::move(times)) / count;
  };
  Cut all(std::numeric_limits<size_t>::max(), num_cached_tokens);
  const Graph whole = record(all);
  StepProfile profile;
  profile.num_cached_tokens = num_cached_tokens;
  profile.steps_us = time(whole, kSteps);
  double before = 0.0;
  for (size_t i = 0; i < all.queued().size(); ++i) {
    Cut cut(i + 1, num_cached_tokens);
    const double until = time(record(cut), 1);
    if (i == 0) profile.start_us = until;
    StepProfile::Row& row = row_of(profile, all.queued()[i]);
    ++row.count;
    row.bytes += all.queued()[i].bytes;
    row.microseconds += i == 0 ? 0.0 : until - before;
    before = until;
  }
  profile.step_us = before;
  return profile;
}

}  // namespace octet
