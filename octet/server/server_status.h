// What /api/status says: everything the page shows but the histograms, which it takes from /metrics.
#pragma once

#include <chrono>
#include <optional>
#include <span>

#include "octet/base/json.h"
#include "octet/server/generation.h"
#include "octet/server/lifecycle.h"
#include "octet/server/served_model.h"

namespace octet {

struct ServerStatus {
  const Lifecycle& lifecycle;
  const ServedModel* model;  // nullptr while it loads
  std::optional<EngineMetrics> engine;
  std::chrono::steady_clock::duration uptime;
  int64_t num_rejected;
  std::span<const RequestStatus> requests;
};

// {"state", "progress", "uptime_seconds", "version", "commit", "model": null or {...}, "engine": null or {...},
//  "requests": [...]}
Json status_json(const ServerStatus& status);

}  // namespace octet
