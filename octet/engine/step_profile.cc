#include "octet/engine/step_profile.h"

#include <algorithm>
#include <limits>

#include "octet/device/graph.h"

namespace octet {
namespace {

// How often a step is measured.
struct Counts {
  int repeats;  // of a step cut short, of which the median counts
  int steps;    // one behind the other
};
constexpr Counts kOften = {7, 20}, kSeldom = {3, 3};
constexpr double kLongStep = 8e3;  // us, from which on a few times suffice, and more would take minutes

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

StepProfile profile_step(Stream stream, const ProfiledStep& step, const std::function<void(LaunchObserver&)>& queue) {
  const int64_t num_cached_tokens = step.batch_size * step.num_tokens;
  const auto record = [&](Cut& cut) { return Graph::capture(stream, [&] { queue(cut); }); };
  const auto time = [&](const Graph& graph, int repeats, int count) {
    std::vector<double> times;
    replay_time(graph, stream, 1);
    for (int i = 0; i < repeats; ++i) times.push_back(replay_time(graph, stream, count));
    return median(std::move(times)) / count;
  };
  Cut all(std::numeric_limits<size_t>::max(), num_cached_tokens);
  const Graph whole = record(all);
  StepProfile profile;
  profile.step = step;
  const Counts counts = time(whole, 1, 1) < kLongStep ? kOften : kSeldom;
  profile.steps_us = time(whole, counts.repeats, counts.steps);
  double before = 0.0;
  for (size_t i = 0; i < all.queued().size(); ++i) {
    Cut cut(i + 1, num_cached_tokens);
    const double until = time(record(cut), counts.repeats, 1);
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
