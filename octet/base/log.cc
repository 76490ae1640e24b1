#include "octet/base/log.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace octet {
namespace {

// Process-wide by nature: stderr is one per process.
struct LogState {
  std::atomic<LogLevel> level{LogLevel::kInfo};
  std::atomic<LogStyle> style{LogStyle::kPlain};
  std::mutex mutex;
  std::set<std::string, std::less<>> warned;
};

LogState& state() {
  static LogState instance;
  return instance;
}

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "";
}

// "2026-11-30T21:45:03.123+0100".
std::string local_time() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm parts{};
  localtime_r(&seconds, &parts);
  char date[32], zone[8];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  std::strftime(zone, sizeof zone, "%z", &parts);
  return fmt::format("{}.{:03}{}", date, millis, zone);
}

std::string json_line(LogLevel level, std::string_view text, LogFields fields) {
  nlohmann::ordered_json line = {{"ts", local_time()}, {"level", level_name(level)}, {"msg", text}};
  for (const auto& [key, value] : fields) line[std::string(key)] = value;
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string text_line(LogLevel level, std::string_view text, LogFields fields, LogStyle style) {
  std::string line = style == LogStyle::kTimed  ? fmt::format("{} {} {}", local_time(), level_name(level), text)
                     : level == LogLevel::kInfo ? fmt::format("octet: {}", text)
                                                : fmt::format("octet: {}: {}", level_name(level), text);
  for (const auto& [key, value] : fields) line += fmt::format(" {}={}", key, value);
  if (style == LogStyle::kTimed) {  // what a client sent may not begin a line of its own, nor steer a terminal
    std::replace_if(
        line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7F'; }, ' ');
  }
  return line + "\n";
}

}  // namespace

void log_line(LogLevel level, std::string_view text, LogFields fields) {
  if (level < state().level.load(std::memory_order_relaxed)) return;
  const LogStyle style = state().style.load(std::memory_order_relaxed);
  const std::string line =
      style == LogStyle::kJson ? json_line(level, text, fields) : text_line(level, text, fields, style);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void warn_once(std::string_view text) {
  {
    std::lock_guard lock(state().mutex);
    if (!state().warned.emplace(text).second) return;
  }
  log_line(LogLevel::kWarning, text);
}

void set_log_style(LogStyle style) { state().style.store(style, std::memory_order_relaxed); }

void set_log_level(LogLevel level) { state().level.store(level, std::memory_order_relaxed); }

}  // namespace octet
