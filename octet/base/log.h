// One line of text to stderr, for an operator. Not for results (those go to stdout) and not on any hot path.
#pragma once

#include <fmt/format.h>

#include <initializer_list>
#include <string_view>
#include <utility>

namespace octet {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// How lines look. kPlain: "octet: text", for a person who runs a command. kTimed: with the local time and the level
// before it, for a server. kJson: one object a line, {"ts", "level", "msg", ...}.
enum class LogStyle { kPlain, kTimed, kJson };

// Facts beside a line's text: "key=value" in text, members in JSON. Values are text.
using LogFields = std::initializer_list<std::pair<std::string_view, std::string_view>>;

// Writes "octet: text", with "warning: " or "error: " before the text for those levels. Thread-safe.
void log_line(LogLevel level, std::string_view text, LogFields fields = {});
// As log_line(kWarning), once per distinct text in this process.
void warn_once(std::string_view text);
// Messages below this level are dropped; kInfo at start.
void set_log_level(LogLevel level);
// kPlain at start.
void set_log_style(LogStyle style);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace octet
