#include "tools/profile_table.h"

#include <fmt/format.h>

namespace octet {
namespace {

constexpr double kMicro = 1e-6;

double reading_us(const StepProfile& profile, int64_t bytes) {
  return static_cast<double>(bytes) / static_cast<double>(profile.peak_bytes_per_second) / kMicro;
}

std::string table_line(const StepProfile& profile, const StepProfile::Row& row) {
  const double reading = reading_us(profile, row.bytes);
  std::string line =
      fmt::format("{:<24} {:<16} {:<16} {:>5} {:>9.1f} {:>8.2f} {:>9.1f}", row.kernel, row.op, row.shape, row.count,
                  row.microseconds, row.microseconds / static_cast<double>(row.count), row.microseconds - reading);
  if (row.bytes > 0)
    line += fmt::format(" {:>9.1f} {:>6.1f}", static_cast<double>(row.bytes) / 1e6, 100.0 * reading / row.microseconds);
  return line + "\n";
}

}  // namespace

std::string profile_table(const StepProfile& profile, double measured_s) {
  const double measured_us = measured_s / kMicro;
  const ProfiledStep& step = profile.step;
  std::string text = fmt::format(
      "One step of {} x {} tokens, {} of each computed: {:.1f} us alone, {:.1f} us among others, {:.1f} us measured "
      "({:.1f} % between steps)\n"
      "us: what the kernels add to those before them; idle: their time less that of reading their bytes at {:.0f} "
      "GB/s\n{:<24} {:<16} {:<16} {:>5} {:>9} {:>8} {:>9} {:>9} {:>6}\n",
      step.batch_size, step.num_tokens, step.num_new, profile.step_us, profile.steps_us, measured_us,
      100.0 * (1.0 - profile.steps_us / measured_us), static_cast<double>(profile.peak_bytes_per_second) / 1e9,
      "kernel", "op", "weight", "count", "us", "us each", "us idle", "MB", "% peak");
  StepProfile::Row all{.kernel = "all, with the start"};
  all.microseconds = profile.start_us;
  for (const StepProfile::Row& row : profile.rows) {
    text += table_line(profile, row);
    all.count += row.count;
    all.microseconds += row.microseconds;
    all.bytes += row.bytes;
  }
  return text + table_line(profile, all);
}

Json profile_json(const StepProfile& profile) {
  Json rows = Json::array();
  for (const StepProfile::Row& row : profile.rows) {
    const double idle = row.microseconds - reading_us(profile, row.bytes);
    rows.push_back({{"kernel", row.kernel},
                    {"op", row.op},
                    {"weight", row.shape},
                    {"count", row.count},
                    {"us", row.microseconds},
                    {"idle_us", idle},
                    {"bytes", row.bytes}});
  }
  return {{"batch_size", profile.step.batch_size},
          {"num_tokens", profile.step.num_tokens},
          {"num_new", profile.step.num_new},
          {"start_us", profile.start_us},
          {"step_us", profile.step_us},
          {"steps_us", profile.steps_us},
          {"peak_bytes_per_second", profile.peak_bytes_per_second},
          {"kernels", rows}};
}

}  // namespace octet
