// One line of text to stderr, for an operator. Not for results (those go to stdout) and not on any hot path.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace octet {

enum class LogLevel { kInfo, kWarning, kError };

// Writes "octet: text", with "warning: " or "error: " before the text for those levels. Thread-safe.
void log_line(LogLevel level, std::string_view text);
// As log_line(kWarning), once per distinct text in this process.
void warn_once(std::string_view text);
// Messages below this level are dropped; kInfo at start.
void set_log_level(LogLevel level);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace octet
