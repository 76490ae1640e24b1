// Lifecycle: where the server stands between its start and its end, and whether it makes progress. Health is not that a
// thread answers but that steps end.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "octet/base/json.h"
#include "octet/engine/engine.h"

namespace octet {

class Lifecycle {
 public:
  enum class State : uint8_t { kLoading, kReady, kDraining, kStopped };
  explicit Lifecycle(std::chrono::seconds stall_timeout) : stall_timeout_(stall_timeout) {}

  State state() const { return state_.load(); }
  void set_state(State state) { state_.store(state); }
  void set_progress(int64_t done_bytes, int64_t total_bytes);
  double progress() const { return progress_.load(); }

  struct Health {
    int status = 200;
    Json body;
  };
  // `engine`: nothing while the model loads. `now_us` on the steady clock.
  Health ready(const std::optional<EngineMetrics>& engine, bool faulty, int64_t now_us) const;
  // As ready, but loading and draining are fine: only what a restart would mend is not.
  Health alive(const std::optional<EngineMetrics>& engine, bool faulty, int64_t now_us) const;

 private:
  std::optional<Health> broken(const std::optional<EngineMetrics>& engine, bool faulty, int64_t now_us) const;

  const std::chrono::seconds stall_timeout_;
  std::atomic<State> state_{State::kLoading};
  std::atomic<double> progress_{0.0};  // of loading, 0 to 1
};

}  // namespace octet
