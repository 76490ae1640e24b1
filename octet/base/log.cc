#include "octet/base/log.h"

#include <atomic>
#include <cstdio>
#include <mutex>
#include <set>
#include <string>

namespace octet {
namespace {

// Process-wide by nature: stderr is one per process.
struct LogState {
  std::atomic<LogLevel> level{LogLevel::kInfo};
  std::mutex mutex;
  std::set<std::string, std::less<>> warned;
};

LogState& state() {
  static LogState instance;
  return instance;
}

const char* prefix(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo:
      return "";
    case LogLevel::kWarning:
      return "warning: ";
    case LogLevel::kError:
      return "error: ";
  }
  return "";
}

}  // namespace

void log_line(LogLevel level, std::string_view text) {
  if (level < state().level.load(std::memory_order_relaxed)) return;
  const std::string line = fmt::format("octet: {}{}\n", prefix(level), text);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void warn_once(std::string_view text) {
  {
    std::lock_guard lock(state().mutex);
    if (!state().warned.emplace(text).second) return;
  }
  log_line(LogLevel::kWarning, text);
}

void set_log_level(LogLevel level) { state().level.store(level, std::memory_order_relaxed); }

}  // namespace octet
