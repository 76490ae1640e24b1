// What a person at a terminal sees: progress bars, streamed text, tables.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "octet/api/llm.h"

namespace octet {

bool stderr_is_terminal();
bool stdout_is_terminal();

// One line on stderr that is drawn again at most ten times a second; nothing when stderr is no terminal.
class ProgressBar {
 public:
  ProgressBar(std::string title, std::string unit) : title_(std::move(title)), unit_(std::move(unit)) {}
  // Draws; ends the line when done == total.
  void update(int64_t done, int64_t total);

 private:
  std::string title_, unit_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point drawn_{};
  bool finished_ = false;
};

// Writes to stdout at once.
void print_now(std::string_view text);

// Rows of equal length as aligned columns.
std::string format_table(const std::vector<std::vector<std::string>>& rows);
// "1.23 GiB".
std::string format_bytes(int64_t bytes);

// The start-up report, to stderr.
void print_report(const EngineReport& report);

// A request's output as the JSON that `generate --json` prints.
Json output_json(const RequestOutput& output);

}  // namespace octet
