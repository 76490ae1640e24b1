#include "octet/server/lifecycle.h"

#include <algorithm>

namespace octet {
namespace {

// As llama-server's, which probes know.
Json unavailable(const std::string& message) {
  return {{"message", message}, {"type", "unavailable_error"}, {"param", nullptr}, {"code", 503}};
}

}  // namespace

void Lifecycle::set_progress(int64_t done_bytes, int64_t total_bytes) {
  if (total_bytes > 0) progress_.store(static_cast<double>(done_bytes) / static_cast<double>(total_bytes));
}

std::optional<Lifecycle::Health> Lifecycle::broken(const std::optional<EngineMetrics>& engine, bool faulty,
                                                   int64_t now_us) const {
  if (faulty) return Health{503, {{"status", "failed"}, {"error", unavailable("The engine has stopped")}}};
  if (!engine || engine->num_running + engine->num_waiting == 0) return std::nullopt;
  const int64_t age_us = now_us - engine->last_progress_us;
  if (age_us < std::chrono::microseconds(stall_timeout_).count()) return std::nullopt;
  return Health{503,
                {{"status", "stalled"},
                 {"running", engine->num_running},
                 {"waiting", engine->num_waiting},
                 {"last_step_age_s", static_cast<double>(age_us) / 1e6},
                 {"error", unavailable("The engine makes no progress")}}};
}

Lifecycle::Health Lifecycle::ready(const std::optional<EngineMetrics>& engine, bool faulty, int64_t now_us) const {
  if (auto health = broken(engine, faulty, now_us)) return *std::move(health);
  switch (state()) {
    case State::kLoading:
      return {503, {{"status", "loading"}, {"progress", progress()}, {"error", unavailable("Loading model")}}};
    case State::kDraining:
    case State::kStopped:
      return {503, {{"status", "draining"}, {"error", unavailable("The server is shutting down")}}};
    case State::kReady:
      break;
  }
  return {200, {{"status", "ok"}}};
}

Lifecycle::Health Lifecycle::alive(const std::optional<EngineMetrics>& engine, bool faulty, int64_t now_us) const {
  if (auto health = broken(engine, faulty, now_us)) return *std::move(health);
  return {200, {{"status", "ok"}}};
}

}  // namespace octet
